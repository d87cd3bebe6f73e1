"""Rotary positions: queries turned to stand at another place than they do.

A query at position i is R(i) q. From the cosines and sines that a model hands its attention modules, and its own way of
applying them, R(j - i) is known, so a query can be turned to any place j that the forward has been at. Whether that is
what a model does is tried once: two forwards, the second with every token five places later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..kernels.inputs import AttentionInputs
from .attention import capture
from .models import Model
from .sample import sample_batch

ARGUMENT = "position_embeddings"
APPLY = ("apply_rotary_pos_emb", "apply_rotary_pos_emb_interleave")
LATER = 5
ALLOWED = {torch.bfloat16: 0.1}
"""Largest difference of a turned query from the model's own, relative to the largest number in it: rounding, which many
layers of bfloat16 add up."""
OTHERWISE = 0.02
Apply = Callable[..., Any]
"""apply(query, key, cos, sin) -> both turned, as the files of transformers have it."""
Tables = tuple[Tensor, Tensor]
"""(cosines, sines), [batch or 1, position, width]."""


@dataclass(frozen=True)
class Rotary:
    """What the attention modules of one sequence were handed so far."""

    applied: Mapping[str, Apply]
    """Name of each module that turns its queries -> how."""
    tables: dict[str, Tables] = field(default_factory=dict)

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Take down what the modules are handed inside the block, after what was there before."""
        with ExitStack() as stack:
            for name in self.applied:
                module = network.get_submodule(name)
                hook = module.register_forward_pre_hook(self._taking_down(name), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def _taking_down(self, name: str) -> Callable[..., None]:
        def take_down(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            handed = signature(module.forward).bind_partial(*given, **named).arguments.get(ARGUMENT)
            if isinstance(handed, tuple):
                cos, sin = handed
                before = self.tables.get(name)
                self.tables[name] = (cos, sin) if before is None else _joined(before, (cos, sin))

        return take_down

    def turned(self, name: str, query: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """The queries [batch, head, query, d_head] of a module as if they stood at `end` and not `start`.

        Both int64 [batch, query], counted along the sequence, padding included. A module without positions leaves them.
        """
        if name not in self.applied:
            return query
        (cos_start, sin_start), (cos_end, sin_end) = self._at(name, start), self._at(name, end)
        cos = cos_end * cos_start + sin_end * sin_start
        sin = sin_end * cos_start - cos_end * sin_start
        return _rotated(self.applied[name], query, cos, sin)

    def _at(self, name: str, place: Tensor) -> Tables:
        """Cosines and sines of places [batch, query], of length 1: some models scale them."""
        cos, sin = (one.float().expand(len(place), -1, -1) for one in self.tables[name])
        index = place.to(cos.device)[..., None].expand(-1, -1, cos.shape[-1])
        cos, sin = cos.gather(1, index), sin.gather(1, index)
        length = torch.hypot(cos, sin)
        return cos / length, sin / length


def rotary_of(model: Model) -> Rotary:
    """Rotary positions for one sequence of a model; refused where its queries are not turned as `Rotary` says."""
    if model not in _TRIED:
        _TRIED[model] = _turning(model)
    return Rotary(_TRIED[model])


_TRIED: WeakKeyDictionary[Model, Mapping[str, Apply]] = WeakKeyDictionary()


def _turning(model: Model) -> dict[str, Apply]:
    """The modules that turn their queries, tried on a few random tokens."""

    def refused(why: str) -> UserError:
        return UserError(f"edit streaming needs rotary positions, and {model.name} {why}; `mask` keeps the same keys, "
                         "at their own positions")  # fmt: skip

    sample = sample_batch(model)
    if sample is None or sample.input_ids is None or "position_ids" not in signature(model.network.forward).parameters:
        raise refused("takes no position_ids")
    if sample.extra:
        raise refused("takes more than tokens")
    first, here = _forward(model, sample.input_ids, 0)
    later, there = _forward(model, sample.input_ids, LATER)
    if not here.tables:
        raise refused("hands none to its attention modules")
    both = Rotary(here.applied, {name: _joined(here.tables[name], there.tables[name]) for name in here.tables})
    count, length = sample.input_ids.shape
    start, allowed = torch.arange(length).expand(count, -1), ALLOWED.get(model.network.dtype, OTHERWISE)
    turning = {name: here.applied[name] for name, query in first.items() if _apart(query, later[name]) > allowed}
    for name in turning:
        try:
            found = both.turned(name, first[name], start, start + length)
        except (RuntimeError, TypeError, KeyError):
            found = torch.full_like(first[name], torch.nan)
        if not _apart(found, later[name]) < allowed:
            raise refused(f"turns the queries of {name} in a way of its own")
    return turning


def _forward(model: Model, ids: Tensor, later: int) -> tuple[dict[str, Tensor], Rotary]:
    """(the queries of every attention module by name, what they were handed), tokens `later` places on."""
    names = {id(module): name for name, module in model.network.named_modules()}
    queries: dict[str, Tensor] = {}

    def keep(module: nn.Module, call: AttentionInputs) -> None:
        queries[names[id(module)]] = call.query.float()

    handed = Rotary({name: apply for name, module in model.network.named_modules() if (apply := _apply_of(module))})
    places = torch.arange(ids.shape[1], device=model.device).expand(ids.shape) + later
    with handed.watching(model.network), capture(model.network, keep):
        model.network(input_ids=ids.to(model.device), position_ids=places, use_cache=False)
    return queries, handed


def _apply_of(module: nn.Module) -> Apply | None:
    """How the file of an attention module applies cosines and sines; None for a module that is handed none."""
    if ARGUMENT not in signature(module.forward).parameters:
        return None
    file = vars(sys.modules[type(module).__module__])
    interleaved = getattr(getattr(module, "config", None), "rope_interleave", False)
    return file.get(APPLY[1] if interleaved and APPLY[1] in file else APPLY[0])


def _rotated(apply: Apply, query: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The model's own rotation of queries in float32; where it takes no whole head, of the first of its columns."""
    whole = query.float()
    try:
        turned = apply(whole, whole, cos, sin)[0]
    except RuntimeError:
        width = cos.shape[-1]
        part = whole[..., :width]
        turned = torch.cat([apply(part, part, cos, sin)[0], whole[..., width:]], -1)
    return turned.to(query.dtype)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _joined(before: Tables, handed: Tables) -> Tables:
    """Tables of a sequence and of what comes after it."""
    return torch.cat([before[0], handed[0]], dim=1), torch.cat([before[1], handed[1]], dim=1)
