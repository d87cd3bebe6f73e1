"""The statistics of one attention call by the Triton kernels: what they are handed, how often they run, what returns.

    rows alone                     one online sweep
    with keys or blocks            an online sweep for logsumexp, then one given sweep for everything else
    logsumexp handed in            the given sweep alone (the fused form: the model's own SDPA has found it)
    a second clipped_distance      one given sweep more for each further limit

Same fields as `streaming.py`, summed in float32; `output` rounds weights to the precision of the values. `obstacle`
says which calls it can't take, and why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs

from .aligned import with_aligned_maps
from .counts import band_count, block_count, visible_keys
from .gather import gather_weights
from .inputs import AttentionInputs
from .keys import received_entropy
from .prepared import BITS
from .selected import BASES, selected_stats
from .stats import BLOCK_SIZE, FIELDS, ROW, parameters, split_name
from .triton_bands import key_bands, row_bands
from .triton_scores import Call
from .triton_shapes import at_once, block_sizes, walkers
from .triton_sweep import GROUPS as GROUP_COLUMNS
from .triton_sweep import Marks, Out, sweep
from .triton_tokens import equal_keys

GROUPS = GROUP_COLUMNS.value
"""Group labels the kernels can tell apart."""
UNBOUNDED = 1 << 30
"""A band without limit: beyond every length, and still an int32 when an offset is added."""
WIDEST = 256
"""Largest head size, in half precision; half of it in float32."""
MOST = 65535
"""Heads of all examples together: the second axis of a grid."""
TOKEN_FIELDS = ("duplicate_mass", "induction_mass")
"""Fields of a sweep that compare tokens."""
COUNTS = ("duplicate_keys", "induction_keys")
"""Fields that all heads share, and that need no sweep."""
FINAL = frozenset({"received", "received_by_group", "received_entropy", "pooled_mean", "pooled_max"})
"""Fields of a sweep that need final weights, so a given logsumexp."""
AFTER = frozenset({"window_mass", "future_average", "weight_at"}) | BASES
"""Fields that are found from logsumexp once the sweeps are done."""


def obstacle(inputs: AttentionInputs) -> str | None:
    """Why the kernels can't take this call; None where they can."""
    widths = [inputs.query.shape[-1]] + ([] if inputs.value is None else [inputs.value.shape[-1]])
    if inputs.visibility.rule is not None:
        return "its mask is a rule in Python"
    if inputs.group_count > GROUPS:
        return f"it has {inputs.group_count} groups, more than {GROUPS}"
    widest = WIDEST // 2 if inputs.query.dtype.itemsize > 2 and not interpreted() else WIDEST  # shared memory
    if max(widths) > widest:
        return f"its heads are {max(widths)} wide in {inputs.query.dtype}, more than {widest}"
    if (lanes := inputs.shape[0] * inputs.shape[1]) > MOST:
        return f"it has {lanes} heads in all examples together, more than {MOST}; make the batch smaller"
    return None


def triton_stats(
    inputs: AttentionInputs, needs: frozenset[str], *, logsumexp: Tensor | None = None
) -> dict[str, Tensor]:
    """Every field of `needs`; `logsumexp` [batch, head, query] in nats, where the caller has it, saves a sweep."""
    reason = obstacle(inputs)
    if reason is not None:
        raise NotImplementedError(f"the Triton kernels can't take this call: {reason}")
    with torch.cuda.device_of(inputs.query):
        return with_aligned_maps(
            lambda call, names, known: _measured(Launch(call), names, known), inputs, needs, logsumexp
        )


def _measured(launch: Launch, needs: frozenset[str], logsumexp: Tensor | None) -> dict[str, Tensor]:
    """The sweeps that `needs` take, one after another."""
    swept = {name for name in needs if split_name(name)[0] in Out._fields}
    if "max_weight" in needs:
        swept |= {"max_logit", "logsumexp"}
    if "output_norm" in needs:
        swept |= {"output"}
    if "received_entropy" in needs:
        swept |= {"received"}
    later = {name for name, _ in parameters(needs, "clipped_distance")[1:]}  # one limit a sweep
    first = swept - later
    found: dict[str, Tensor] = {}
    if logsumexp is not None:
        found["logsumexp"] = launch.in_bits(logsumexp)
    elif first & FINAL:
        found |= launch.sweep({"logsumexp"}, None)
    elif needs - {"visible_keys", *COUNTS}:
        found |= launch.sweep(first | {"logsumexp"}, None)
    for names in (first, *({name} for name in later)):
        if names - found.keys():
            found |= launch.sweep(names - found.keys(), found["logsumexp"])
    if needs & set(COUNTS):
        found |= launch.equal_keys()
    if any(split_name(name)[0] in AFTER for name in needs):
        found |= launch.after(needs, found["logsumexp"])
    return {name: launch.finished(name, found) for name in needs | {"visible_keys"}}


class Launch:
    """One call on its device: the operands of the kernels, and their launches."""

    def __init__(self, inputs: AttentionInputs) -> None:
        self.inputs = inputs
        low = inputs.query.dtype in (torch.float16, torch.bfloat16) and not interpreted()
        self.dtype = inputs.query.dtype if low else torch.float32
        query = inputs.query if inputs.scale >= 0 else -inputs.query
        self.query = _dense(query.to(self.dtype))
        key = inputs.key.to(self.dtype)
        # softmax does not see a shift that all keys share, float32 does; half precision would round the shifted keys
        self.centre = key.mean(2, keepdim=True) if not low and inputs.softcap is None else None
        self.key = _dense(key if self.centre is None else key - self.centre)

    @cached_property
    def common(self) -> Tensor | float:
        """What centring took from each row's logits, in bits, [batch, head, query]."""
        if self.centre is None:
            return 0.0
        query = self.query.unflatten(1, (-1, self.inputs.repeats))
        return abs(self.inputs.scale) * BITS * (query @ self.centre[:, :, None].mT).squeeze(-1).flatten(1, 2)

    def in_bits(self, logsumexp: Tensor) -> Tensor:
        """A logsumexp in nats as the kernels hold it: in bits, of centred keys."""
        return (logsumexp.float() * BITS - self.common).contiguous()

    @cached_property
    def call(self) -> Call:
        """Pointers, strides and the rule of visibility."""
        inputs, view = self.inputs, self.inputs.visibility
        bias = inputs.bias
        if bias is not None:
            bias = bias.float().expand(inputs.shape)
        return Call(
            query=self.query, key=self.key, query_strides=self.query.stride()[:3], key_strides=self.key.stride()[:3],
            heads=inputs.shape[1], repeats=inputs.repeats, queries=inputs.shape[2], keys=inputs.shape[3],
            before=UNBOUNDED if view.before is None else min(view.before, UNBOUNDED),
            after=UNBOUNDED if view.after is None else min(view.after, UNBOUNDED), offset=view.offset,
            scale=abs(inputs.scale) * (BITS if inputs.softcap is None else 1.0), softcap=inputs.softcap, bias=bias,
            bias_strides=(0, 0, 0, 0) if bias is None else bias.stride(),
            key_mask=None if view.key_mask is None else view.key_mask.to(torch.int8).contiguous(),
        )  # fmt: skip

    @cached_property
    def real(self) -> Tensor | None:
        """int8 [batch, query]; None where all are."""
        mask = self.inputs.visibility.query_mask
        return None if mask is None or bool(mask.all()) else mask.to(torch.int8).contiguous()

    @cached_property
    def value_norms(self) -> Tensor:
        """[batch, kv_head, key]."""
        return self.inputs.value.float().norm(dim=-1)  # type: ignore[union-attr]

    @cached_property
    def largest_norm(self) -> Tensor:
        """The unit of value_weighted_mass, [batch, kv_head, 1], never 0."""
        return self.value_norms.amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def sizes(self, fields: Collection[str] = ()) -> dict[str, Any]:
        """Compile-time sizes of the kernel that finds these fields."""
        return block_sizes(self.query.shape[-1], self.dtype, fields)

    def sweep(self, names: set[str], given: Tensor | None) -> dict[str, Tensor]:
        """Run one sweep for the fields `names`, which hold one limit at most."""
        batch, heads, queries, _ = self.inputs.shape
        spelled = {split_name(name)[0]: name for name in names}
        pack = 1 if names & FINAL else self.inputs.repeats
        sizes = self.sizes(spelled.keys())
        blocks, lanes = triton.cdiv(queries * pack, sizes["BLOCK_Q"]), batch * heads // pack
        programs = blocks
        if names & {"received", "received_by_group", "received_entropy"}:
            programs = walkers(blocks, lanes, at_once(self.query.device))
        out = Out(*(self.allocate(base, programs) if base in spelled else None for base in Out._fields))
        value = self.inputs.value.shape[-1] if "output" in names else 1  # type: ignore[union-attr]
        sizes |= {"D_VALUE": value, "BLOCK_V": max(16, triton.next_power_of_2(value)), "PACK": pack}
        sweep[(programs, lanes)](self.call, self.marks(spelled), given, out, blocks, **sizes)
        found = {name: getattr(out, base) for base, name in spelled.items()}
        return {name: values.sum(0) if name.startswith("received") else values for name, values in found.items()}

    def marks(self, spelled: Mapping[str, str]) -> Marks:
        """What the fields of a sweep (base -> name) read of tokens and values; None for all else."""
        inputs, names = self.inputs, spelled.keys()
        tokens = names & set(TOKEN_FIELDS)
        groups = names & {"group_mass", "value_weighted_mass"}
        limits = [limit for _, (limit,) in parameters(spelled.values(), "clipped_distance")]
        if tokens and (inputs.query_tokens is None or inputs.key_tokens is None):
            raise ValueError("duplicate_mass and induction_mass compare tokens: pass query_tokens and key_tokens")
        key_token = inputs.key_tokens.to(torch.int32).clamp(min=-1) if tokens else None  # type: ignore[union-attr]
        query_token = inputs.query_tokens.to(torch.int32) if tokens else None  # type: ignore[union-attr]
        value = inputs.value
        sink = inputs.sink_logits
        if sink is not None:
            sink = (sink.float() * BITS)[None, :, None] - self.common
            sink = sink.expand(inputs.shape[:3]).contiguous()
        return Marks(
            key_group=inputs.labels("key").to(torch.int8).contiguous() if groups else None,
            query_group=inputs.labels("query").to(torch.int8).contiguous() if "received_by_group" in names else None,
            real=self.real if names & FINAL else None,
            query_token=None if query_token is None else torch.where(query_token < 0, -2, query_token).contiguous(),
            key_token=None if key_token is None else key_token.contiguous(),
            token_before=None
            if key_token is None
            else torch.nn.functional.pad(key_token, (1, -1), value=-1).contiguous(),
            value=value.to(self.dtype).contiguous() if "output" in names else None,  # type: ignore[union-attr]
            value_norm=self.value_norms / self.largest_norm if "value_weighted_mass" in names else None,
            sink=sink,
            groups=inputs.group_count,
            limit=float(limits[0]) if limits else None,
        )

    def equal_keys(self) -> dict[str, Tensor]:
        """How many keys with its token a query sees, for every head."""
        batch, heads, queries, _ = self.inputs.shape
        counts = torch.empty(len(COUNTS), batch, queries, dtype=torch.int32, device=self.query.device)
        marks = self.marks({name: name for name in TOKEN_FIELDS})
        grid = (triton.cdiv(queries, BLOCK_SIZE), batch)
        sizes: dict[str, Any] = {"BLOCK_Q": BLOCK_SIZE, "BLOCK_K": BLOCK_SIZE}
        equal_keys[grid](self.call, marks, counts[0], counts[1], **sizes)
        return dict(zip(COUNTS, counts[:, :, None].expand(-1, -1, heads, -1), strict=True))

    def allocate(self, name: str, programs: int) -> Tensor:
        """What the sweep writes for one field; only what it may leave unwritten is filled."""
        batch, heads, queries, keys = self.inputs.shape
        tails = {
            "group_mass": (queries, GROUPS), "value_weighted_mass": (queries, GROUPS), "received": (keys,),
            "received_entropy": (keys,), "received_by_group": (self.inputs.group_count, keys),
        }  # fmt: skip
        if name == "output":
            tails[name] = (queries, self.inputs.value.shape[-1])  # type: ignore[union-attr]
        blocks = (triton.cdiv(queries, BLOCK_SIZE), triton.cdiv(keys, BLOCK_SIZE))
        tail = blocks if name.startswith("pooled") else tails.get(name, (queries,))
        lead = (programs,) if name.startswith("received") else ()
        dtype = torch.int32 if name.endswith("_key") else torch.float32
        make = torch.zeros if name in FINAL else torch.empty
        return make(*lead, batch, heads, *tail, dtype=dtype, device=self.query.device)

    def after(self, needs: frozenset[str], given: Tensor) -> dict[str, Tensor]:
        """Bands and single weights, from logsumexp."""
        found = self.row_bands(needs, given) | self.key_bands(needs, given)
        named = sorted(name for name in needs if split_name(name)[0] == "weight_at")
        centred = replace(self.inputs, query=self.query, key=self.key, scale=abs(self.inputs.scale))
        if named:
            targets = torch.stack([self.inputs.targets[split_name(name)[1][0]] for name in named], dim=-1)
            weights = gather_weights(centred, given / BITS, targets)
            found |= dict(zip(named, weights.unbind(-1), strict=True))
        return found | selected_stats(centred, needs, given / BITS)

    def row_bands(self, needs: frozenset[str], given: Tensor) -> dict[str, Tensor]:
        """window_mass, all variants in one launch."""
        windows = parameters(needs, "window_mass")
        if not windows:
            return {}
        batch, heads, queries, _ = self.inputs.shape
        mass = torch.empty(len(windows), batch, heads, queries, device=self.query.device)
        widths = torch.tensor(
            [min(width, UNBOUNDED) for _, (width,) in windows], dtype=torch.int32, device=self.query.device
        )
        sizes = self.sizes()
        grid = (triton.cdiv(queries, sizes["BLOCK_Q"]), batch * heads, len(windows))
        row_bands[grid](self.call, given, widths, mass, **sizes)
        return {name: mass[index] for index, (name, _) in enumerate(windows)}

    def key_bands(self, needs: frozenset[str], given: Tensor) -> dict[str, Tensor]:
        """future_average, all variants in one launch; sums, divided in `finished`."""
        bands = parameters(needs, "future_average")
        if not bands:
            return {}
        batch, heads, _, keys = self.inputs.shape
        mass = torch.empty(len(bands), batch, heads, keys, device=self.query.device)
        limits = [[min(word, UNBOUNDED) for word in words] for _, words in bands]
        bounds = torch.tensor(limits, dtype=torch.int32, device=self.query.device)
        sizes = self.sizes()
        grid = (triton.cdiv(keys, sizes["BLOCK_K"]), batch * heads, len(bands))
        key_bands[grid](self.call, given, bounds, self.real, mass, **sizes)
        return {name: mass[index] for index, (name, _) in enumerate(bands)}

    def finished(self, name: str, found: Mapping[str, Tensor]) -> Tensor:
        """One field in its own unit from what the kernels wrote: nats, means, the groups that exist."""
        base, arguments = split_name(name)
        inputs = self.inputs
        if base == "visible_keys":
            return visible_keys(inputs)[:, None].expand(inputs.shape[:3]).contiguous()
        if base == "max_weight":
            weight = torch.exp2(found["max_logit"] - found["logsumexp"])
            return torch.where(torch.isfinite(found["logsumexp"]), weight, 0.0)
        if base == "output_norm":
            return found["output"].norm(dim=-1)
        values = found[name]
        if base in ("logsumexp", "max_logit"):
            return (values + self.common) / BITS
        if FIELDS[base].axes == ROW and not values.is_floating_point():
            return values.long()
        if base == "value_weighted_mass":
            values = values * self.largest_norm.repeat_interleave(inputs.repeats, 1)[..., None]
        if base in ("group_mass", "value_weighted_mass"):
            return values[..., : inputs.group_count].contiguous()
        if base == "received_entropy":
            return received_entropy(found["received"], values)
        if base == "received_by_group":
            return values.mT.contiguous()
        if base == "future_average":
            count = band_count(inputs, *map(int, arguments))[:, None]
            return torch.where(count > 0, values / count.clamp(min=1), 0.0)
        if base == "pooled_mean":
            return values / block_count(inputs).clamp(min=1)[:, None, :, None]
        return values


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, where bf16 dot products are wrong."""
    return bool(knobs.runtime.interpret)


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
