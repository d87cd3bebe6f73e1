"""The (query, key) pairs of a block that a comparison of tokens picks out, few or many.

Equal tokens are rare in text and common in repeats of few tokens. Few pairs are gathered one by one, many are a mask
over the block: measured on a CPU, one by one is faster below about 2 % of the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .tile import Tile

FEW = 0.02
"""Share of the pairs below which they are gathered."""


class Matches:
    """The visible pairs of one block in `same`, bool [batch, query, key]; `count` of them in each [batch, query]."""

    def __init__(self, same: Tensor, dtype: torch.dtype) -> None:
        batch, queries, _ = same.shape
        self.few = bool(torch.count_nonzero(same) <= FEW * same.numel())
        if self.few:
            self.batch, self.query, self.key = same.nonzero(as_tuple=True)
            self.row = self.batch * queries + self.query
            self.count = torch.bincount(self.row, minlength=batch * queries).view(batch, queries)
        else:
            self.mask = same[:, None, None].to(dtype)
            self.count = same.sum(-1)

    def paid(self, tile: Tile) -> Tensor:
        """Weight that each query pays to its matches, [batch, kv_head, repeat, query]."""
        if not self.few:
            scratch = tile.block.whole.buffer(2, *tile.shape)
            return torch.mul(tile.weights, self.mask, out=scratch).sum(-1)
        batch, kv_heads, repeats, queries, _ = tile.shape
        paid = tile.weights.permute(0, 3, 4, 1, 2)[self.batch, self.query, self.key]  # [pair, kv_head, repeat]
        sums = paid.new_zeros(batch * queries, kv_heads, repeats).index_add_(0, self.row, paid)
        return sums.view(batch, queries, kv_heads, repeats).permute(0, 2, 3, 1)
