"""Edits of what a head writes, before the output projection: its weights stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels.inputs import AttentionInputs
from .kind import REQUIRED, edits, share
from .place import Place, first_key

if TYPE_CHECKING:
    from .edit import Edit


@edits("output")
def zero(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """The head writes nothing."""
    return torch.zeros_like(output)


@edits("output", amount=REQUIRED)
def scale(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """The head writes `amount` times what it does."""
    assert edit.amount is not None
    return output * edit.amount


@edits("output", needs="means")
def mean(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """The head writes its mean output over other prompts, whatever it reads."""
    vectors = place.means[place.of][list(place.heads)].to(output)
    return vectors[None, :, None].expand_as(output)


@edits("output", needs="partner", prompt_only="the partner prompts have no such step")
def resample(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """The head writes what it writes at the same token of another prompt."""
    return place.partner[place.of][:, list(place.heads)].to(output)


@edits("output")
def first(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """All attention goes to the first token, as in a dormant head."""
    assert inputs.value is not None
    where = first_key(inputs)[:, None, :, None]
    return (inputs.value[..., : output.shape[-1]] * where).sum(2, keepdim=True).to(output.dtype).expand_as(output)


@edits("output", amount=1.0, check=share)
def identity(output: Tensor, inputs: AttentionInputs, edit: Edit, place: Place) -> Tensor:
    """A share `amount` of every row's weight moves to the query itself."""
    assert inputs.value is not None and edit.amount is not None
    start = inputs.visibility.offset
    own = inputs.value[:, :, start : start + output.shape[2], : output.shape[3]]
    return torch.lerp(output, own.to(output.dtype), edit.amount)
