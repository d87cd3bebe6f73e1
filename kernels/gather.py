"""The attention weight at given keys, O(n d): no softmax is formed, the logsumexp of each row is known.

p_i,t(i) = exp(z_i,t(i) - logsumexp_i). FLOPs 2 d per (query, target); one exponential.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import AttentionInputs

CELLS = 1 << 24
"""Floats of the queries that are converted, and of the keys that are gathered, at once."""


def gather_weights(inputs: AttentionInputs, logsumexp: Tensor, targets: Tensor) -> Tensor:
    """Weights [batch, head, query, target] at key indices `targets` [batch, query, target]; 0 where negative or hidden.

    `logsumexp` [batch, head, query] is that of the same call (a sink logit included).
    """
    batch, heads, queries, _ = inputs.shape
    cells = inputs.query[:, :, 0].numel() + targets.shape[-1] * inputs.key[:, :, 0].numel()
    found = logsumexp.new_empty(batch, heads, queries, targets.shape[-1])
    size = max(1, CELLS // max(1, cells))
    for start in range(0, queries, size):
        place = slice(start, min(queries, start + size))
        found[:, :, place] = _gathered(inputs, logsumexp[:, :, place], targets[:, place], place)
    return found


def _gathered(inputs: AttentionInputs, logsumexp: Tensor, targets: Tensor, place: slice) -> Tensor:
    """The weights of the queries at `place`."""
    rows = torch.arange(place.start, place.stop, device=targets.device)
    batch, heads, count = len(targets), inputs.shape[1], targets.shape[-1]
    kept = targets.clamp(min=0)
    index = kept.flatten(1)[:, None, :, None].expand(-1, inputs.key.shape[1], -1, inputs.key.shape[-1])
    key = inputs.key.gather(2, index).unflatten(2, (len(rows), count)).to(logsumexp.dtype)
    query = inputs.query[:, :, place].to(logsumexp.dtype).unflatten(1, (-1, inputs.repeats))
    logits = inputs.capped(inputs.scale * torch.einsum("bkrqd,bkqtd->bkrqt", query, key).flatten(1, 2))
    if inputs.bias is not None:
        bias = inputs.bias[:, :, place].expand(batch, heads, -1, -1)
        logits = logits + bias.gather(-1, kept[:, None].expand(-1, heads, -1, -1))
    example = torch.arange(batch, device=targets.device)
    seen = inputs.visibility.shows(example[:, None, None], rows[:, None], targets)[:, None]
    filled = (logsumexp > -torch.inf)[..., None]
    return torch.where(seen & filled, torch.exp(logits - logsumexp[..., None]), 0.0)
