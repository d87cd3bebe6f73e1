"""One tile of an attention map: a few heads of one block of queries, and their softmax.

Axes inside a tile: [batch, kv_head, repeat, query, key], where head = kv_head * repeats + repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from . import prepared
from .block import HIDDEN, Block
from .compiled import compiled_pass, wanted
from .prepared import BITS, normaliser
from .stats import BLOCK_SIZE, FLOOR


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
    """The softmax of a few heads of one block: weights = 2^shifted, shifted = (z - max z) log2 e, not normalised.

    `sums` holds what a compiled pass has summed already, by the name of the statistic.

    Logits are kept in bits (z log2 e): exp2 is several times faster than exp on a CPU. They lack what centring took
    from every key alike, which `Prepared.common` holds.
    """

    def __init__(self, block: Block, kv_heads: slice, repeats: slice) -> None:
        self.block, self.kv_heads, self.repeats = block, kv_heads, repeats
        self.place = (block.batches, kv_heads, repeats, slice(block.start, block.stop))
        self.sums: dict[str, Tensor] = {}
        logits = self._score()
        if block.whole.compiled:
            self._pass_once(logits)
        else:
            self._weigh(logits)

    def _score(self) -> Tensor:
        """Logits in bits from centred keys, hidden cells at HIDDEN or below."""
        block, whole = self.block, self.block.whole
        query = whole.query[self.place].to(whole.dtype)
        query = query * (whole.inputs.scale if whole.inputs.softcap is not None else whole.inputs.scale * BITS)
        batch, kv_heads, repeats, rows, width = query.shape
        self.shape = (batch, kv_heads, repeats, rows, block.high - block.low)
        key = self._keys().flatten(0, 1)
        flat = self._cells("logits").view(batch * kv_heads, repeats * rows, -1)
        torch.bmm(query.reshape(batch * kv_heads, repeats * rows, width), key.mT, out=flat)
        logits = flat.view(self.shape)
        if whole.inputs.softcap is not None:
            logits.div_(whole.inputs.softcap).tanh_().mul_(whole.inputs.softcap * BITS)
        if whole.inputs.bias is not None:
            logits.add_(self._bias(whole.inputs.bias), alpha=BITS).clamp_(min=HIDDEN)
        for low, high, floor in block.floors:
            logits[..., low:high].add_(floor)
        return logits

    def _cells(self, name: str) -> Tensor:
        """Working memory of one number a cell, [batch, kv_head, repeat, query, key]."""
        return self.block.whole.buffer(name, *self.shape, at_least=prepared.TILE_ELEMENTS)

    def _keys(self) -> Tensor:
        """The keys of this tile less what all keys share, [batch, kv_head, key, d]."""
        block, whole = self.block, self.block.whole
        key = whole.inputs.key[block.batches, self.kv_heads, block.low : block.high]
        if whole.centre is None:
            return key.to(whole.dtype)
        return torch.sub(key, whole.centre[block.batches, self.kv_heads], out=whole.buffer("keys", *key.shape))

    def _bias(self, bias: Tensor) -> Tensor:
        """The additive bias of this tile, broadcastable to [batch, kv_head, repeat, query, key]."""
        block = self.block
        here = bias[block.batches] if bias.shape[0] > 1 else bias
        here = here[:, :, block.start : block.stop, block.low : block.high]
        if bias.shape[1] == 1:
            return here[:, :, None]
        return here.unflatten(1, (-1, block.inputs.repeats))[:, self.kv_heads, self.repeats]

    def _weigh(self, logits: Tensor) -> None:
        """Peaks, weights and their sum; `shifted` stays where a sum over logits is asked for, 0 where hidden."""
        block, whole = self.block, self.block.whole
        self.peak = logits.amax(-1).clamp_(min=FLOOR)  # so that where nothing is seen, nothing weighs
        self.shifted = logits.sub_(self.peak[..., None])
        spread = whole.needs & {"logit_sum", "logit_sum_squares"}
        kept = spread or whole.needs & {"entropy", "received_entropy"}
        self.weights = torch.exp2(self.shifted, out=self._cells("weights") if kept else self.shifted)
        for low, high, seen in block.seen if spread else ():
            self.shifted[..., low:high].mul_(seen)
        self.total = self.weights.sum(-1)
        self.sums |= {"peak": self.peak, "total": self.total}

    def _pass_once(self, logits: Tensor) -> None:
        """Weights and all elementwise sums at once."""
        needs, (query, key) = self.block.whole.needs, self.block.positions
        rows = logits.flatten(0, 3)
        blocks = bool(needs & {"pooled_mean", "pooled_max", "argmax_key"}) and len(key) % BLOCK_SIZE == 0
        weights, sums = compiled_pass(
            rows, query.repeat(len(rows) // len(query)), key, wanted(needs), blocks=blocks,
            cells="received_entropy" in needs,
        )  # fmt: skip
        self.weights = weights.view(self.shape)
        self.sums = {name: values.unflatten(0, self.shape[:4]) for name, values in sums.items()}
        self.peak, self.total = self.sums["peak"], self.sums["total"]

    @cached_property
    def norm(self) -> Tensor:
        """What turns weights into probabilities, [batch, kv_head, repeat, query]; 0 for an empty row."""
        whole = self.block.whole
        sink = None if whole.sink is None else whole.sink[self.place]
        return normaliser(self.peak, self.total, sink)

    def linear(self) -> Tensor:
        """weights @ columns, [batch, kv_head, repeat, query, column]."""
        block, (batch, kv_heads, repeats, rows, keys) = self.block, self.shape
        if "value_weighted_mass" not in block.whole.needs:
            product = torch.bmm(self.weights.view(batch, -1, keys), block.linear.mT)
        else:
            columns = block.whole.buffer("columns", batch, kv_heads, block.linear.shape[1], keys)
            columns.copy_(block.linear[:, None])
            norms = block.whole.value_norms[block.batches, self.kv_heads, :, block.low : block.high]
            columns[:, :, block.whole.columns["value_weighted_mass"]].mul_(norms)
            product = torch.bmm(self.weights.view(batch * kv_heads, repeats * rows, keys), columns.flatten(0, 1).mT)
        return product.view(batch, kv_heads, repeats, rows, -1)

    def output(self) -> Tensor:
        """weights @ values, [batch, kv_head, repeat, query, d_value]."""
        block, (batch, kv_heads, repeats, rows, keys) = self.block, self.shape
        value = block.whole.value[block.batches, self.kv_heads, block.low : block.high]  # type: ignore[index]
        weights = self.weights.view(batch * kv_heads, repeats * rows, keys)
        product = torch.bmm(weights, value.reshape(batch * kv_heads, keys, -1))
        return product.view(batch, kv_heads, repeats, rows, -1)

    def weight_at(self, target: str) -> Tensor:
        """The weight at one key per query, 0 where it has none, [..., query]."""
        index, inside = self.block.target(target)
        return self.weights.gather(-1, index.expand(*self.shape[:4], 1)).squeeze(-1) * inside

    def argmax_key(self) -> Tensor:
        """The key block that holds the largest weight first, then the key inside it: argmax over all keys is slow."""
        if self.shape[-1] < 4 * BLOCK_SIZE:
            return self.weights.argmax(-1) + self.block.low
        columns = self.block_maxima.argmax(-1, keepdim=True)
        first = (columns * BLOCK_SIZE).clamp(max=self.shape[-1] - BLOCK_SIZE)
        keys = first + torch.arange(BLOCK_SIZE, device=first.device)
        inside = self.weights.gather(-1, keys).argmax(-1)
        return first.squeeze(-1) + inside + self.block.low

    @cached_property
    def information(self) -> Tensor:
        """weights times shifted, [..., query, key]; the last use of `shifted`, which is overwritten."""
        made = self.sums.get("information")
        return self.shifted.mul_(self.weights) if made is None else made

    @cached_property
    def share(self) -> Tensor:
        """What turns weights into what keys receive: `norm`, and 0 where the query is padding, [..., query]."""
        return self.norm * self.block.real[:, None, None]

    def over_queries(self, cells: Tensor) -> Tensor:
        """sum_i share_i cells_ij, [..., key]."""
        return (self.share[..., None, :] @ cells).squeeze(-2)

    @cached_property
    def column_sums(self) -> Tensor:
        """sum_i share_i weights_ij for each of the block's label rows, [..., row, key].

        With received_entropy one row more, in which each term is multiplied by log2 norm_i.
        """
        rows = self.block.label_rows[:, None, None]
        if "received_entropy" in self.block.whole.needs:
            bits = torch.where(self.norm > 0, self.norm, 1.0).log2()[..., None, :]
            rows = torch.cat([rows.expand(*bits.shape[:3], -1, -1), bits], dim=-2)
        scaled = rows * self.share[..., None, :]
        product = torch.bmm(scaled.flatten(0, 2), self.weights.flatten(0, 2))
        return product.unflatten(0, self.shape[:3])

    @property
    def received_by_label(self) -> Tensor:
        """sum_i p_ij over the real queries of each label that occurs, [..., label, key]."""
        return self.column_sums[..., : self.block.label_rows.shape[1], :]

    def by_blocks(self, reduce: str) -> Tensor:
        """Weights of each query reduced (`sum` or `amax`) over each block of keys, [..., key block]."""
        made = self.sums.get({"sum": "block_sums", "amax": "block_maxima"}[reduce])
        if made is not None:
            return made
        whole = self.shape[-1] - self.shape[-1] % BLOCK_SIZE
        function = getattr(torch, reduce)
        blocks = function(self.weights[..., :whole].unflatten(-1, (-1, BLOCK_SIZE)), -1)
        if whole < self.shape[-1]:
            blocks = torch.cat([blocks, function(self.weights[..., whole:], -1, keepdim=True)], dim=-1)
        return blocks

    @cached_property
    def block_maxima(self) -> Tensor:
        """Largest weight of each query in each block of keys."""
        return self.by_blocks("amax")
