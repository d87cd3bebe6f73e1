"""One tile of an attention map: a few heads of one block of queries, and their softmax.

Axes inside a tile: [batch, kv_head, repeat, query, key], where head = kv_head * repeats + repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from . import prepared
from .block import FLOOR, Block
from .stats import BLOCK_SIZE

BITS = math.log2(math.e)
"""Bits of a nat."""


def tiles_of(block: Block) -> Iterator[Tile]:
    """The heads of this block, as many together as fit."""
    _, heads, _, _ = block.inputs.shape
    repeats, kv_heads = block.inputs.repeats, heads // block.inputs.repeats
    elements = (block.batches.stop - block.batches.start) * (block.stop - block.start) * (block.high - block.low)
    fit = max(1, prepared.TILE_ELEMENTS // max(1, elements))
    kv_step, repeat_step = (max(1, fit // repeats), repeats) if fit >= repeats else (1, fit)
    for kv in range(0, kv_heads, kv_step):
        for repeat in range(0, repeats, repeat_step):
            yield Tile(block, slice(kv, min(kv_heads, kv + kv_step)), slice(repeat, min(repeats, repeat + repeat_step)))


class Tile:
    """The softmax of a few heads of one block: weights = exp(z - peak), norm = exp(peak - logsumexp).

    Logits are kept in bits (z log2 e): exp2 is several times faster than exp on a CPU. `peak` and `logsumexp` are in
    nats again, without the share `common` that all keys have.
    """

    def __init__(self, block: Block, kv_heads: slice, repeats: slice) -> None:
        self.block, self.kv_heads, self.repeats = block, kv_heads, repeats
        self._score()
        self._normalise()

    @property
    def heads(self) -> tuple[slice, slice, slice]:
        """Index of this tile's batch elements, kv heads and repeats."""
        return self.block.batches, self.kv_heads, self.repeats

    def _score(self) -> None:
        """shifted = (z - max z) log2 e, with z from centred keys and hidden cells at FLOOR or below."""
        block, whole = self.block, self.block.whole
        query = whole.query[self.heads][:, :, :, block.start : block.stop].to(whole.dtype)
        query = query * (whole.inputs.scale if whole.inputs.softcap is not None else whole.inputs.scale * BITS)
        batch, kv_heads, repeats, rows, width = query.shape
        self.shape = (batch, kv_heads, repeats, rows, block.high - block.low)
        key = whole.key[block.batches, self.kv_heads, block.low : block.high].reshape(batch * kv_heads, -1, width)
        flat = whole.buffer(0, batch * kv_heads, repeats * rows, self.shape[-1])
        torch.bmm(query.reshape(batch * kv_heads, repeats * rows, width), key.mT, out=flat)
        logits = flat.view(self.shape)
        centre = None if whole.centre is None else whole.centre[self.heads[:2]][:, :, None]
        self.common = 0.0 if centre is None else (query @ centre.mT).squeeze(-1) / BITS
        if whole.inputs.softcap is not None:
            logits.div_(whole.inputs.softcap).tanh_().mul_(whole.inputs.softcap * BITS)
        if whole.inputs.bias is not None:
            logits.add_(self._bias(whole.inputs.bias), alpha=BITS).clamp_(min=FLOOR)
        for low, high, floor in block.floors:
            logits[..., low:high] += floor
        peak = logits.amax(-1)
        self.peak = peak / BITS
        self.shifted = logits.sub_(peak[..., None])

    def _bias(self, bias: Tensor) -> Tensor:
        """The additive bias of this tile, broadcastable to [batch, kv_head, repeat, query, key]."""
        block = self.block
        here = bias[block.batches] if bias.shape[0] > 1 else bias
        here = here[:, :, block.start : block.stop, block.low : block.high]
        if bias.shape[1] == 1:
            return here[:, :, None]
        return here.unflatten(1, (-1, block.inputs.repeats))[:, self.kv_heads, self.repeats]

    def _normalise(self) -> None:
        """Weights, their sum and the factor that turns them into probabilities (the sink logit included)."""
        block, whole = self.block, self.block.whole
        in_place = not whole.needs & {"entropy", "logit_sum", "logit_sum_squares"}
        self.weights = torch.exp2(self.shifted, out=self.shifted if in_place else whole.buffer(1, *self.shape))
        if whole.needs & {"logit_sum", "logit_sum_squares"}:
            for low, high, hidden in block.hidden:
                self.shifted[..., low:high] *= ~hidden[:, None, None]
        if block.empty is not None:
            self.weights.masked_fill_(block.empty[:, None, None, :, None], 0.0)
        self.total = self.weights.sum(-1)
        self.logsumexp = self.peak + self.total.log()
        if whole.inputs.sink_logits is not None:
            sink = whole.inputs.sink_logits.to(whole.dtype).unflatten(0, (-1, whole.inputs.repeats))
            sink = sink[self.kv_heads, self.repeats][None, :, :, None]
            self.logsumexp = torch.where(
                self.total > 0, torch.logaddexp(self.logsumexp, sink - self.common), -torch.inf
            )
            self.norm = torch.where(self.total > 0, torch.exp(self.peak - self.logsumexp), 0.0)
        else:
            self.norm = torch.where(self.total > 0, self.total.reciprocal(), 0.0)

    @cached_property
    def linear(self) -> Tensor:
        """weights @ columns, normalised, [batch, kv_head, repeat, query, column]."""
        columns = self.block.linear
        batch, kv_heads, repeats, rows, keys = self.shape
        if columns.shape[1] == 1:
            product = torch.bmm(self.weights.view(batch, -1, keys), columns[:, 0].mT)
        else:
            columns = columns[:, self.kv_heads].flatten(0, 1)
            product = torch.bmm(self.weights.view(batch * kv_heads, repeats * rows, keys), columns.mT)
        return product.view(batch, kv_heads, repeats, rows, -1) * self.norm[..., None]

    def columns(self, name: str) -> Tensor:
        """The linear statistics called `name`, [batch, kv_head, repeat, query, column]."""
        return self.linear[..., self.block.whole.columns[name]]

    @cached_property
    def column_sums(self) -> Tensor:
        """Sums over queries of the normalised weights for each of the block's column rows, [..., row, key]."""
        rows = self.block.column_rows
        batch, kv_heads, repeats, queries, keys = self.shape
        scaled = rows[:, None, None] * self.norm[..., None, :]
        product = torch.bmm(scaled.view(-1, rows.shape[1], queries), self.weights.view(-1, queries, keys))
        return product.view(batch, kv_heads, repeats, rows.shape[1], keys)

    def by_blocks(self, reduce: Callable[..., Tensor]) -> Tensor:
        """Weights of each query reduced (sum or amax) over each block of keys, not normalised, [..., key block]."""
        whole = self.shape[-1] - self.shape[-1] % BLOCK_SIZE
        blocks = reduce(self.weights[..., :whole].unflatten(-1, (-1, BLOCK_SIZE)), -1)
        if whole < self.shape[-1]:
            blocks = torch.cat([blocks, reduce(self.weights[..., whole:], -1, keepdim=True)], dim=-1)
        return blocks

    @cached_property
    def block_maxima(self) -> Tensor:
        """Largest weight of each query in each block of keys, not normalised."""
        return self.by_blocks(torch.amax)

    def dot(self, other: Tensor) -> Tensor:
        """sum_j weights_j other_j, normalised; `other` broadcasts to the tile."""
        scratch = self.block.whole.buffer(2, *self.shape)
        return torch.mul(self.weights, other, out=scratch).sum(-1) * self.norm

    def near(self, name: str) -> Tensor:
        """sum over the near keys of weights times what each counts for, normalised, [..., query]."""
        low, high = self.block.near
        scratch = self.block.whole.buffer(2, *self.shape[:-1], high - low)
        return torch.mul(self.weights[..., low:high], self.block.near_columns[name], out=scratch).sum(-1) * self.norm
