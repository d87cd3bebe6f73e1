"""Edits of the logits: the weights are made anew, and their rows still sum to 1."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels.inputs import AttentionInputs
from .kind import REQUIRED, cache_sizes, edits, positive
from .place import Place, first_key, never, sees, wider, with_key_bias

if TYPE_CHECKING:
    from .edit import Edit


def _nothing_else(inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """Rows that see keys of `from_group` alone."""
    assert edit.from_group is not None
    return ~sees(inputs, ~place.keys(inputs, edit.from_group))


@edits("weights", from_group=REQUIRED, keeps=_nothing_else)
def block(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """The keys of `from_group` get no weight, the others share it as before; a row of no other keys stays as it is."""
    assert edit.from_group is not None
    return with_key_bias(inputs, place.keys(inputs, edit.from_group), never(inputs))


@edits("weights", from_group=REQUIRED, amount=REQUIRED, check=positive)
def boost(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """The weights of the keys of `from_group` are multiplied by `amount`, and the row is normalised again."""
    assert edit.from_group is not None and edit.amount is not None
    return with_key_bias(inputs, place.keys(inputs, edit.from_group), math.log(edit.amount))


@edits("weights", amount=REQUIRED, check=positive)
def temperature(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """The logits are divided by `amount`: above 1 attention flattens, below 1 it sharpens."""
    assert edit.amount is not None
    by = 1.0 / edit.amount
    return replace(
        inputs,
        scale=inputs.scale * by,
        softcap=None if inputs.softcap is None else inputs.softcap * by,
        bias=None if inputs.bias is None else inputs.bias * by,
        sink_logits=None if inputs.sink_logits is None else inputs.sink_logits * by,
    )


@edits("weights")
def uniform(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """Every visible key gets the same weight: the head writes the mean of the values."""
    return replace(inputs, query=torch.zeros_like(inputs.query), softcap=None, bias=None, sink_logits=None)


@edits("weights", sinks=4, recent=REQUIRED, check=cache_sizes)
def mask(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """Only the first `sinks` and the last `recent` keys are seen, as with a cache that keeps no others."""
    assert edit.sinks is not None and edit.recent is not None
    sinks, recent, view = edit.sinks, edit.recent, inputs.visibility
    start = first_key(inputs).long().argmax(1)

    def kept(batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key - start[batch] < sinks) | (query + view.offset - key < recent)
        return seen if view.rule is None else seen & view.rule(batch, query, key)

    return replace(inputs, visibility=replace(view, rule=kept))


@edits("weights", sinks=4, recent=REQUIRED, check=cache_sizes, needs="rotary")
def streaming(inputs: AttentionInputs, edit: Edit, place: Place) -> AttentionInputs:
    """As `mask`, and positions are counted in the cache (StreamingLLM): no query is more than sinks + recent - 1 away.

    Keys of sinks meet queries that are turned to the end of the cache: both side by side, as twice as many columns.
    """
    assert edit.sinks is not None and edit.recent is not None and place.turn is not None and inputs.value is not None
    _, _, queries, keys = inputs.shape
    start = first_key(inputs).long().argmax(1)[:, None]
    position = torch.arange(keys, device=start.device) - start
    index = torch.arange(queries, device=start.device).expand(len(start), -1) + inputs.visibility.offset
    far = place.turn(inputs.query, index, torch.minimum(index, start + edit.sinks + edit.recent - 1))
    sinks = ((position >= 0) & (position < edit.sinks))[:, None, :, None]
    return replace(
        mask(inputs, edit, place),
        query=torch.cat([inputs.query, far], dim=-1),
        key=torch.cat([inputs.key * ~sinks, inputs.key * sinks], dim=-1),
        value=wider(inputs.value, inputs.query.shape[-1]),
    )
