"""Where an edit acts: a call, the heads of it that are edited, and what the edit may ask of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...data.errors import UserError
from ...data.groups import ANSWERING, FIRST, LABELS, NOT, family
from ...kernels.inputs import AttentionInputs
from ...kernels.sdpa import attention_output
from ...kernels.stats import Call

Place_ = tuple[str, int]
Turn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""turn(queries, where they stand, where they shall), places int64 [batch, query]."""


@dataclass(frozen=True)
class Place:
    """One attention call, and the heads of it that are edited alike."""

    call: Call
    heads: tuple[int, ...]
    group_names: tuple[str, ...]
    means: Mapping[Place_, Tensor]
    """(tower, layer) -> mean output [head, d_head] of every head."""
    partner: Mapping[Place_, Tensor]
    """(tower, layer) -> outputs [batch, head, query, d_head] of the partner prompts."""
    coming: tuple[str, ...] = ()
    """Labels that no token has yet, but will."""
    generating: bool = False
    """Whether a token of the answer comes after the last one."""
    turn: Turn | None = None
    """Queries of this call [batch, head, query, d_head] as if they stood elsewhere, for an edit that needs `rotary`."""

    @property
    def of(self) -> Place_:
        """Where `means` and `partner` hold this call."""
        return self.call.tower, self.call.layer

    def keys(self, inputs: AttentionInputs, name: str, *, of: str = "key") -> Tensor:
        """bool [batch, key] (or query), True for tokens that `name` names; refused if there are none.

        A name is a label, with the labels under it, `first`, or `answering`: tokens whose next token is one of the
        answer. Several are joined by `+`; after `not:` all other tokens are meant, padding aside: `not:user+answer`.
        """
        one, *others = name.removeprefix(NOT).split("+")
        found = self._labelled(inputs, one, of)
        for other in others:
            found = found | self._labelled(inputs, other, of)
        if not name.startswith(NOT):
            return found
        real = inputs.real_queries() if of == "query" else inputs.visibility.key_mask
        rest = ~found if real is None else ~found & real
        if not bool(rest.any()):
            raise UserError(f"no token is left for {name!r} here: all are {name.removeprefix(NOT)}; name fewer labels")
        return rest

    def _labelled(self, inputs: AttentionInputs, name: str, of: str) -> Tensor:
        """bool [batch, key] (or query), True for tokens labelled `name` or a label under it; refused if none is."""
        if name in (FIRST, ANSWERING):
            keys = first_key(inputs) if name == FIRST else self._answering(inputs)
            start, queries = inputs.visibility.offset, inputs.shape[2]
            return keys if of == "key" else keys[:, start : start + queries]
        known = set(family(name)) if name in LABELS else {name}
        members = [index for index, one in enumerate(self.group_names) if one in known]
        keys = inputs.labels("key")
        wanted = torch.tensor(members, dtype=keys.dtype, device=keys.device)
        if name not in self.coming and not bool(torch.isin(keys, wanted).any()):
            there = [one for index, one in enumerate(self.group_names) if bool((keys == index).any())]
            raise UserError(f"no token is labelled {name!r} here; the prompts have {', '.join(there)}, and {FIRST!r}")
        return torch.isin(inputs.labels(of), wanted)

    def _answering(self, inputs: AttentionInputs) -> Tensor:
        """bool [batch, key], True for tokens whose next one is of the answer, or will be."""
        said = self._labelled(inputs, "answer", "key")
        real = real_keys(inputs)
        place = torch.arange(said.shape[1], device=said.device).expand_as(said)
        last = said.shape[1]
        after = place if real is None else place.masked_fill(~real, last).flip(1).cummin(1).values.flip(1)
        after = torch.nn.functional.pad(after[:, 1:], (0, 1), value=last)
        follows = torch.nn.functional.pad(said, (0, 1), value=self.generating).gather(1, after)
        return follows if real is None else follows & real


def first_key(inputs: AttentionInputs) -> Tensor:
    """bool [batch, key], True for the first key that is no padding."""
    batch, _, _, keys = inputs.shape
    real = real_keys(inputs)
    if real is None:
        return (torch.arange(keys, device=inputs.query.device) == 0).expand(batch, keys)
    return real & (real.long().cumsum(1) == 1)


def real_keys(inputs: AttentionInputs) -> Tensor | None:
    """bool [batch, key], True for keys that are no padding; None where nothing says that there is any."""
    real = inputs.visibility.key_mask
    if real is None and inputs.key_tokens is not None:  # a model that makes its mask itself hides padding in a rule
        real = inputs.key_tokens >= 0
    return real


def picked(inputs: AttentionInputs, heads: tuple[int, ...]) -> AttentionInputs:
    """The call with these query heads alone, each with a key-value head of its own."""
    _, count, _, _ = inputs.shape
    if heads == tuple(range(count)) and inputs.repeats == 1:
        return inputs
    device = inputs.query.device
    chosen = torch.tensor(heads, device=device)
    owner = chosen // inputs.repeats
    assert inputs.value is not None
    bias, sinks = inputs.bias, inputs.sink_logits
    return replace(
        inputs,
        query=inputs.query[:, chosen],
        key=inputs.key[:, owner],
        value=inputs.value[:, owner],
        bias=bias[:, chosen] if bias is not None and bias.shape[1] > 1 else bias,
        sink_logits=sinks[chosen] if sinks is not None else None,
    )


def with_key_bias(inputs: AttentionInputs, keys: Tensor, bias: float) -> AttentionInputs:
    """The call with `bias` added to the logits of `keys` [batch, key].

    As two more columns of queries (bias / scale, and what rounding took of it) and keys (1 at `keys`), so that stock
    SDPA still takes the call; values get columns of zeros. A soft-cap would cap them: there it is a bias of its own.
    """
    if inputs.softcap is not None:
        batch, _, queries, count = inputs.shape
        added = (keys * bias)[:, None, None].to(torch.float32).expand(batch, 1, queries, count)
        return replace(inputs, bias=added if inputs.bias is None else inputs.bias + added)
    assert inputs.value is not None
    width = inputs.query.shape[-1]
    spare = -width % 8
    spare += 8 if spare < 2 else 0
    query, key, value = (wider(one, spare) for one in (inputs.query, inputs.key, inputs.value))
    whole = torch.tensor(bias / inputs.scale, dtype=torch.float64)
    high = whole.to(query.dtype)
    query[..., width] = high
    query[..., width + 1] = (whole - high.double()).to(query.dtype)
    key[..., width : width + 2] = keys[:, None, :, None].to(key.dtype)
    return replace(inputs, query=query, key=key, value=value)


def never(inputs: AttentionInputs) -> float:
    """A logit bias after which nothing is left of a weight; a row of such keys alone keeps its weights.

    120 nats below any other logit: |z| <= scale max ||q|| max ||k||, or the soft-cap, plus the largest bias. A power of
    2, so that it hardly hangs on other heads and prompts; more would cost digits, for keys are centred, so a part of it
    is added to every logit.
    """
    reach = inputs.scale * float(inputs.query.norm(dim=-1).amax() * inputs.key.norm(dim=-1).amax())
    reach = reach if inputs.softcap is None else min(reach, inputs.softcap)
    beside = 0.0 if inputs.bias is None else float(inputs.bias.abs().amax())
    return -(2.0 ** math.ceil(math.log2(120.0 + 2 * (reach + beside))))


def wider(tensor: Tensor, columns: int) -> Tensor:
    """The tensor with that many columns of zeros more."""
    return torch.nn.functional.pad(tensor, (0, columns))


def sees(inputs: AttentionInputs, keys: Tensor) -> Tensor:
    """bool [batch, query], True where a query sees some of `keys` [batch, key]."""
    batch, _, queries, count = inputs.shape
    flat = inputs.query.new_zeros(batch, 1, max(queries, count), 8)
    chosen = keys[:, None, :, None].to(flat.dtype).expand(-1, -1, -1, 8)
    mean, _ = attention_output(AttentionInputs(flat[:, :, :queries], flat[:, :, :count], chosen,
                                               visibility=inputs.visibility))  # fmt: skip
    return mean[:, 0, :, 0] > 0


def part_of(inputs: AttentionInputs, keys: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of p_ij v_j over `keys` [batch, head or 1, key], their mass [batch, head, query, 1])."""
    assert inputs.value is not None
    chosen = keys[..., None].to(inputs.value.dtype)
    output, _ = attention_output(replace(inputs, value=inputs.value * chosen))
    ones = torch.zeros_like(inputs.value)
    ones[..., :1] = chosen
    mass, _ = attention_output(replace(inputs, value=ones))
    return output, mass[..., :1]
