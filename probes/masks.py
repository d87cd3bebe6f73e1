"""The mask of an attention call as a rule instead of an n x n tensor.

transformers builds masks from small functions of (batch, head, query, key) indices and lets an attention implementation
choose what to make of them. Ours makes a `MaskRule`: the causal, bidirectional and sliding-window functions are read
back as a band of offsets, the 2-D padding mask stays 2-D, and whatever else a model adds is kept as a function that is
evaluated a block of queries at a time. Dense masks that a model builds itself are wrapped the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils

from ..kernels.inputs import Rule, Visibility

MaskFunction = Callable[..., Any]


@dataclass(frozen=True)
class MaskRule:
    """What travels through a model's code in place of its 4-D mask tensor."""

    visibility: Visibility
    shape: tuple[int, int, int, int]
    """[batch, 1, query, key], as the tensor's would be."""

    ndim = 4
    dtype = torch.bool

    def to(self, *_: Any, **__: Any) -> MaskRule:
        """Models move their masks between devices and dtypes; a rule needs neither."""
        return self


def mask_rule(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction = masking_utils.causal_mask_function,
    attention_mask: Tensor | None = None,
    use_vmap: bool = False,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **kwargs: Any,
) -> MaskRule | None:
    """The mask function registered beside our attention function (signature of `masking_utils.sdpa_mask`).

    As there, None stands for a plain causal or a full mask wherever the model allows it.
    """
    shape = (batch_size, 1, q_length, kv_length)
    if use_vmap:
        dense = masking_utils.sdpa_mask(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, use_vmap=True,
            allow_is_causal_skip=False, allow_is_bidirectional_skip=False, device=kwargs.get("device", "cpu"),
        )  # fmt: skip
        assert dense is not None
        return MaskRule(tensor_mask(dense)[0], shape)
    padding = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        padding = padding[:, kv_offset : kv_offset + kv_length].bool()
    before, after, unknown = _band(mask_function)
    key_mask = None if padding is None or bool(padding.all()) else padding
    # no real query of a causal call sees padding on the right, so nothing needs to be hidden from it
    harmless = key_mask is not None and after == 0 and q_length == kv_length and _right_padded(key_mask)
    plain = key_mask is None and before is None and not unknown
    square = q_length == kv_length and int(q_offset) == int(kv_offset)
    if plain and ((after == 0 and square and allow_is_causal_skip) or (after is None and allow_is_bidirectional_skip)):
        return None
    view = Visibility(
        before=before,
        after=after,
        offset=int(q_offset) - int(kv_offset),
        key_mask=None if harmless else key_mask,
        query_mask=key_mask if q_length == kv_length else None,
        rule=_index_rule(unknown, int(q_offset), int(kv_offset)) if unknown else None,
    )
    return MaskRule(view, shape)


def _right_padded(mask: Tensor) -> bool:
    """Whether each row [key] is real tokens first, then padding."""
    return not bool((mask[:, 1:] & ~mask[:, :-1]).any())


def _parts(function: MaskFunction) -> list[MaskFunction]:
    """The functions that a nest of `and_masks` joins."""
    if getattr(function, "__qualname__", "") != "and_masks.<locals>.and_mask":
        return [function]
    return [part for inner in _captured(function)["mask_functions"] for part in _parts(inner)]


def _captured(function: MaskFunction) -> dict[str, Any]:
    """The variables a closure captured."""
    cells = getattr(function, "__closure__", None) or ()
    return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in cells), strict=True))


def _band(function: MaskFunction) -> tuple[int | None, int | None, list[MaskFunction]]:
    """(before, after, what is no band) of a mask function."""
    before: list[int] = []
    after: list[int] = []
    unknown: list[MaskFunction] = []
    for part in _parts(function):
        name = getattr(part, "__qualname__", "")
        if part is masking_utils.causal_mask_function:
            after.append(0)
        elif name == "sliding_window_overlay.<locals>.inner_mask":
            before.append(_captured(part)["sliding_window"] - 1)
        elif name == "sliding_window_bidirectional_overlay.<locals>.inner_mask":
            before.append(_captured(part)["sliding_window"])
            after.append(_captured(part)["sliding_window"])
        elif part is not masking_utils.bidirectional_mask_function:
            unknown.append(part)
    return min(before, default=None), min(after, default=None), unknown


def _index_rule(functions: list[MaskFunction], query_offset: int, key_offset: int) -> Rule:
    """A rule over array indices from mask functions over absolute positions."""

    def rule(batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen: Tensor | None = None
        for function in functions:
            part = function(batch, torch.zeros_like(batch), query + query_offset, key + key_offset)
            seen = part if seen is None else seen & part
        assert seen is not None
        return seen.bool()

    return rule


def tensor_mask(mask: Tensor) -> tuple[Visibility, Tensor | None]:
    """A mask tensor [batch or 1, head or 1, query, key] as (rule, additive bias).

    A bool mask (True = attend) is all rule. A float mask is a bias (some models put position biases there), and where
    it is about the lowest number of its type, nothing is visible.
    """
    floating = mask.dtype != torch.bool
    lowest = torch.finfo(mask.dtype).min if floating else 0.0
    seen = (mask > lowest / 2 if floating else mask).any(1)

    def rule(batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return seen[batch if seen.shape[0] > 1 else torch.zeros_like(batch), query, key]

    plain = floating and bool(((mask == 0) | (mask <= lowest / 2)).all())
    offset = max(0, seen.shape[2] - seen.shape[1])
    return Visibility(rule=rule, offset=offset), mask.clamp(min=lowest / 4) if floating and not plain else None


def implied_visibility(module: torch.nn.Module, query: Tensor, key: Tensor, is_causal: bool | None) -> Visibility:
    """What a missing mask means: causal if the call or module says so and there is more than one query, else full."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal:
        return Visibility()
    queries, keys = query.shape[2], key.shape[2]
    return Visibility(after=0, offset=keys - 1 if queries == 1 else 0)
