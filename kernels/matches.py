"""The (query, key) pairs of a block that hold the same token, few or many.

Equal tokens are rare in text and common in repeats of few tokens. Few are listed, from the sorted keys, and gathered
one by one: nothing of the size of the block is made. Many are a mask over the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .block import Block
    from .tile import Tile

FEW = 0.02
"""Share of a block's pairs up to which they are listed."""
Pairs = tuple[Tensor, Tensor, Tensor]
"""(batch, query, key), each [pair]."""


class Lookup:
    """Where each token stands among the keys, sorted once for a call."""

    def __init__(self, key_tokens: Tensor) -> None:
        self.keys = key_tokens.shape[1]
        self.span = int(key_tokens.max().clamp(min=0)) + 1
        self.sorted, self.order = self._of_its_batch(key_tokens, slice(0, len(key_tokens)), nothing=-1).flatten().sort()

    def _of_its_batch(self, tokens: Tensor, batches: slice, *, nothing: int) -> Tensor:
        """Numbers that are equal where token and batch element are; tokens that equal nothing become `nothing`."""
        start = torch.arange(batches.start, batches.stop, device=tokens.device)[:, None] * self.span
        return torch.where((tokens >= 0) & (tokens < self.span), tokens + start, nothing)

    def pairs(self, query_tokens: Tensor, batches: slice, limit: float) -> Pairs | None:
        """Every pair of equal tokens of queries [batch, query] in `batches`; None if there are more than `limit`."""
        wanted = self._of_its_batch(query_tokens, batches, nothing=-2).flatten()
        first = torch.searchsorted(self.sorted, wanted)
        count = torch.searchsorted(self.sorted, wanted, right=True) - first
        total = int(count.sum())
        if total > limit:
            return None
        row = torch.repeat_interleave(count, output_size=total)
        key = self.order[torch.arange(total, device=row.device) + (first - count.cumsum(0) + count)[row]] % self.keys
        queries = query_tokens.shape[1]
        return row // queries, row % queries, key


class Matches:
    """The visible pairs of one block in which key j - shift is another position that holds the query's token."""

    def __init__(self, block: Block, shift: int) -> None:
        query, key = block.inputs.query_tokens, block.inputs.key_tokens
        if query is None or key is None:
            raise ValueError("duplicate_mass and induction_mass compare tokens: pass query_tokens and key_tokens")
        here = query[block.batches, block.start : block.stop]
        limit = FEW * here.numel() * (block.high - block.low) if block.inputs.visibility.rule is None else -1
        pairs = block.whole.lookup.pairs(here, block.batches, limit)
        self.few = pairs is not None
        if pairs is not None:
            self.batch, self.query, self.key = _kept(block, pairs, shift)
            self.row = self.batch * here.shape[1] + self.query
            self.count = torch.bincount(self.row, minlength=here.numel()).view(here.shape)
        else:
            same = _compared(block, here, key[block.batches], shift)
            self.mask = same[:, None, None].to(block.whole.dtype)
            self.count = same.sum(-1)

    def paid(self, tile: Tile) -> Tensor:
        """Weight that each query pays to its matches, [batch, kv_head, repeat, query]."""
        if not self.few:
            scratch = tile.block.whole.buffer("scratch", *tile.shape)
            return torch.mul(tile.weights, self.mask, out=scratch).sum(-1)
        batch, kv_heads, repeats, queries, _ = tile.shape
        paid = tile.weights.permute(0, 3, 4, 1, 2)[self.batch, self.query, self.key]  # [pair, kv_head, repeat]
        sums = paid.new_zeros(batch * queries, kv_heads, repeats).index_add_(0, self.row, paid)
        return sums.view(batch, queries, kv_heads, repeats).permute(0, 2, 3, 1)


def _kept(block: Block, pairs: Pairs, shift: int) -> Pairs:
    """The pairs that are visible and of two positions, relative to the block."""
    batch, query, key = pairs
    batch, query, key = batch + block.batches.start, query + block.start, key + shift
    view = block.inputs.visibility
    keep = (key >= block.low) & (key < block.high) & (query + view.offset != key - shift)
    keep &= view.shows(batch, query, key.clamp(max=block.high - 1))
    return batch[keep] - block.batches.start, query[keep] - block.start, key[keep] - block.low


def _compared(block: Block, query: Tensor, key: Tensor, shift: int) -> Tensor:
    """bool [batch, query, key] of the block, every pair compared."""
    before = torch.nn.functional.pad(key, (shift, 0), value=-1)[:, block.low : block.high]
    same = query[:, :, None] == before[:, None]
    same &= (before >= 0)[:, None]
    itself = block.start + block.inputs.visibility.offset + shift - block.low
    torch.diagonal(same, itself, dim1=1, dim2=2).fill_(False)
    for low, high, shown in block.edges:
        same[..., low:high] &= shown
    return same
