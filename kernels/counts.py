"""How many keys, queries or rows take part: counting that needs no logit, O(n)."""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import AttentionInputs
from .stats import BLOCK_SIZE


def visible_keys(inputs: AttentionInputs) -> Tensor:
    """int64 [batch or 1, query]: keys inside each query's band that the key mask shows; a rule is not looked at."""
    view, (_, _, queries, keys) = inputs.visibility, inputs.shape
    position = torch.arange(queries, device=inputs.query.device) + view.offset
    low = torch.zeros_like(position) if view.before is None else (position - view.before).clamp(0, keys)
    high = torch.full_like(position, keys) if view.after is None else (position + view.after + 1).clamp(0, keys)
    if view.key_mask is None:
        return (high - low).clamp(min=0)[None]
    before = torch.nn.functional.pad(view.key_mask.long().cumsum(1), (1, 0))
    return (before[:, high] - before[:, low]).clamp(min=0)


def band_count(inputs: AttentionInputs, low: int, high: int) -> Tensor:
    """Number of real queries i with low <= (i + offset) - j <= high, [batch, key]."""
    real = inputs.real_queries()
    before = torch.nn.functional.pad(real.cumsum(1), (1, 0))
    key = torch.arange(inputs.shape[3], device=real.device) - inputs.visibility.offset
    first = (key + low).clamp(0, real.shape[1])
    last = (key + high + 1).clamp(0, real.shape[1])
    return before[:, last] - before[:, first]


def block_count(inputs: AttentionInputs) -> Tensor:
    """Number of real queries in each query block, [batch, query block]."""
    real = inputs.real_queries().long()
    return torch.nn.functional.pad(real, (0, -real.shape[1] % BLOCK_SIZE)).unflatten(1, (-1, BLOCK_SIZE)).sum(-1)
