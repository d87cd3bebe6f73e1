"""Edits that move weight between groups of keys: a row's sum stays what it was.

What moves depends on how much is there, so the masses are summed first: sum_j p_ij v_j splits into the parts of the
groups, and each part is scaled. A row in which nothing could receive keeps its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...data.errors import UserError
from ...kernels.dispatch import attention_stats
from ...kernels.inputs import AttentionInputs
from ...kernels.sdpa import attention_output
from .kind import REQUIRED, edits, share
from .logits import uniform
from .place import Place, first_key, never, part_of, sees, with_key_bias

if TYPE_CHECKING:
    from .edit import Edit


def _taking(inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """bool [batch, key], keys that weight goes to."""
    assert edit.from_group is not None
    return ~place.keys(inputs, edit.from_group) if edit.to_group is None else place.keys(inputs, edit.to_group)


def _no_taker(inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """Rows in which nothing could take weight."""
    return ~sees(inputs, _taking(inputs, edit, place))


@edits("output", from_group=REQUIRED, to_group=None, amount=1.0, check=share, keeps=_no_taker)
def redistribute(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """A share `amount` of the weight on `from_group` goes to `to_group` (all others by default), as it has weight."""
    assert edit.from_group is not None and edit.amount is not None
    giving, taking = place.keys(inputs, edit.from_group), _taking(inputs, edit, place)
    if bool((giving & taking).any()):
        raise UserError(f"edit redistribute: {edit.to_group!r} and {edit.from_group!r} share tokens; expected others")
    return moved(output, inputs, giving[:, None], taking[:, None], edit.amount)


def moved(output: Tensor, inputs: AttentionInputs, giving: Tensor, taking: Tensor, amount: float) -> Tensor:
    """The output after `amount` of the weight of `giving` went to `taking`, both bool [batch, head or 1, key]."""
    given, mass = part_of(inputs, giving)
    there, room = part_of(inputs, taking)
    given, there = given[..., : output.shape[-1]], there[..., : output.shape[-1]]
    factor = torch.where(room > 0, amount * mass / room.clamp(min=torch.finfo(room.dtype).tiny), 0.0)
    return torch.where(room > 0, output - amount * given + factor * there, output)


@edits("output", amount=0.4, threshold=None, check=share, prompt_only="it judges a key by all queries that see it")
def act(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """Hidden sinks keep a share `amount` of their weight, the rest goes to all other keys (ACT).

    A hidden sink of a head and prompt is a key but the first with alpha_k above `threshold`, by default 5 / N of N
    tokens; the released code has 0.1. Chunked attention is taken for causal. Source: Yu et al., ACT, section 4.
    """
    assert edit.amount is not None
    received = attention_stats(inputs, frozenset({"received"}))["received"]
    view, real, first = inputs.visibility, inputs.real_queries(), first_key(inputs)[:, None]
    place_of = (real.long().cumsum(1) - 1)[:, None]
    length = real.sum(1)[:, None, None]
    watching = length - place_of if view.causal else length.expand_as(place_of)
    watching = watching if view.before is None else watching.clamp(max=view.before + 1)
    alpha = received / watching.clamp(min=1)
    above = 5 / length if edit.threshold is None else edit.threshold
    sinks = (alpha > above) & ~first & real[:, None]
    return moved(output, inputs, sinks, ~sinks, 1 - edit.amount)


def _no_target(inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """Rows of `from_group` that see no key of `to_group`."""
    assert edit.from_group is not None
    return place.keys(inputs, edit.from_group, of="query") & _no_taker(inputs, edit, place)


@edits("output", from_group=REQUIRED, to_group=REQUIRED, amount=1.0, check=share, keeps=_no_target)
def force(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """The queries of `from_group` put a share `amount` of their weight on the keys of `to_group`, on each the same.

    The rest stays as it was; where they see no such key, all does. One after the other, edits give rows any weights.
    """
    assert edit.from_group is not None and edit.to_group is not None and edit.amount is not None
    target, flat = place.keys(inputs, edit.to_group), uniform(inputs, edit, place)
    rows = place.keys(inputs, edit.from_group, of="query") & sees(inputs, target)
    made, _ = attention_output(with_key_bias(flat, ~target, never(flat)))
    share_of = edit.amount * rows[:, None, :, None].to(output.dtype)
    return torch.lerp(output, made[..., : output.shape[-1]].to(output.dtype), share_of)
