"""One tile of an attention map: a block of queries, the keys they can see, a few heads, and the softmax of it.

A `Pass` prepares a whole call (centred float keys, the columns of all linear statistics). It is cut into `Block`s, which
hold what all heads share (masks, distances, equal tokens), and each block into `Tile`s of a few heads.
Axes inside a tile: [batch, kv_head, repeat, query, key], where head = kv_head * repeats + repeat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .inputs import AttentionInputs
from .stats import BLOCK_SIZE, parameters

ROW_BLOCK = 128
"""Queries of one tile; a multiple of BLOCK_SIZE."""
TILE_ELEMENTS = 1 << 20
"""Elements of one tile: 4 MB in float32 stay in a CPU's cache."""
FLOOR = -1e30
"""A masked logit: finite, so that weight * logit is 0 and not NaN."""
BITS = math.log2(math.e)
"""Bits of a nat."""
NEAR_FIELDS = ("window_mass", "clipped_distance")
"""Statistics whose parameter says how many tokens around a query must be looked at one by one."""
FAR_COLUMNS = 3
"""Linear columns of one far side: 1, distance, distance squared."""


class Pass:
    """One attention call prepared for streaming in `dtype`."""

    def __init__(self, inputs: AttentionInputs, needs: frozenset[str], dtype: torch.dtype) -> None:
        self.inputs, self.needs, self.dtype = inputs, needs, dtype
        self.query = inputs.query.unflatten(1, (-1, inputs.repeats))
        key = inputs.key.to(dtype)
        self.centre = None if inputs.softcap is not None else key.mean(2, keepdim=True)
        self.key = (key if self.centre is None else key - self.centre).contiguous()
        self.value = inputs.value.to(dtype).contiguous() if "output" in needs else None  # type: ignore[union-attr]
        self.near = max([0, *(n for base in NEAR_FIELDS for _, (n,) in parameters(needs, base))])
        self.query_labels = inputs.labels("query").unique()
        self.columns: dict[str, slice] = {}
        self.linear = self._linear_columns()
        self.buffers = torch.empty(3, 0, dtype=dtype, device=key.device)

    def _linear_columns(self) -> Tensor | None:
        """[batch, kv_head or 1, key, column]: what weights @ columns must yield.

        Groups have a column each where some key carries the label; the far columns are filled in by each block.
        """
        parts: list[Tensor] = []
        inputs, dtype = self.inputs, self.dtype
        batch, _, _, keys = inputs.shape
        labels = inputs.labels("key")
        self.key_labels = labels.unique()
        groups = (labels[..., None] == self.key_labels).to(dtype)[:, None]
        if "group_mass" in self.needs:
            parts.append(groups)
            self._add_column("group_mass", groups.shape[-1])
        if "value_weighted_mass" in self.needs:
            norms = inputs.value.to(dtype).norm(dim=-1)  # type: ignore[union-attr]
            parts.append(groups * norms[..., None])
            self._add_column("value_weighted_mass", groups.shape[-1])
        if any(name.startswith(("mean_distance", "mean_square", "clipped_distance")) for name in self.needs):
            sides = ("left",) if inputs.visibility.causal else ("left", "right")
            parts.append(groups.new_zeros(batch, 1, keys, FAR_COLUMNS * len(sides)))
            for side in sides:
                self._add_column(side, FAR_COLUMNS)
        if not parts:
            return None
        heads = max(part.shape[1] for part in parts)
        # matrix products of a few columns are fastest in multiples of four
        spare = -sum(part.shape[-1] for part in parts) % 4
        parts.append(groups.new_zeros(batch, 1, keys, spare))
        return torch.cat([part.expand(-1, heads, -1, -1) for part in parts], dim=-1)

    def _add_column(self, name: str, count: int) -> None:
        start = max((columns.stop for columns in self.columns.values()), default=0)
        self.columns[name] = slice(start, start + count)

    def row_block(self) -> int:
        """Queries of one block: fewer where a single row of keys is long."""
        keys = self.inputs.shape[3]
        floor = BLOCK_SIZE if self.needs & {"pooled_mean", "pooled_max"} else 16
        rows = ROW_BLOCK
        while rows > floor and rows * keys > TILE_ELEMENTS:
            rows //= 2
        return rows

    def blocks(self) -> Iterator[Block]:
        """All blocks of queries, a few batch elements at a time where the maps are small."""
        batch, heads, queries, keys = self.inputs.shape
        rows = min(self.row_block(), queries)
        together = max(1, min(batch, TILE_ELEMENTS // max(1, heads * rows * keys)))
        for first in range(0, batch, together):
            batches = slice(first, min(batch, first + together))
            for start in range(0, queries, rows):
                low, high = self.inputs.visibility.key_range(start, min(queries, start + rows), keys)
                if low < high:
                    yield Block(self, batches, start, min(queries, start + rows), low - low % BLOCK_SIZE, high)

    def buffer(self, index: int, *shape: int) -> Tensor:
        """Working memory number `index`, reused by every tile."""
        size = 1
        for extent in shape:
            size *= extent
        if self.buffers.shape[1] < size:
            self.buffers = self.buffers.new_empty(3, size)
        return self.buffers[index, :size].view(shape)


@dataclass
class Block:
    """Queries start..stop-1 of a few batch elements against keys low..high-1: everything that heads share."""

    whole: Pass
    batches: slice
    start: int
    stop: int
    low: int
    high: int

    @property
    def inputs(self) -> AttentionInputs:
        """The call this block belongs to."""
        return self.whole.inputs

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.inputs.query.device

    @cached_property
    def hidden(self) -> list[tuple[int, int, Tensor]]:
        """[(first, last, bool [batch or 1, query, key])]: the ranges of keys, relative to low, where something is hidden."""
        view = self.inputs.visibility
        first, last = (self.high, self.high) if view.irregular else view.full_range(*self._span)
        ranges = [(self.low, first), (last, self.high)]
        return [
            (a - self.low, b - self.low, ~view.block(self.batches, self.start, self.stop, a, b, self.device))
            for a, b in ranges
            if a < b
        ]

    @property
    def _span(self) -> tuple[int, int, int, int]:
        return self.start, self.stop, self.low, self.high

    @cached_property
    def visible_keys(self) -> Tensor:
        """[batch or 1, query], number of visible keys."""
        count = torch.full((1, self.stop - self.start), self.high - self.low, device=self.device)
        for _, _, hidden in self.hidden:
            count = count - hidden.sum(-1)
        return count

    @cached_property
    def empty(self) -> Tensor | None:
        """bool [batch or 1, query] of queries that see nothing, or None where there are none."""
        view = self.inputs.visibility
        if not (view.irregular or view.offset < 0):
            return None
        empty = self.visible_keys == 0
        return empty if bool(empty.any()) else None

    @cached_property
    def near(self) -> tuple[int, int]:
        """Keys, relative to low, close enough that distances are summed one by one: no rounding against far keys."""
        position = self.inputs.visibility.offset
        low = max(self.low, min(self.high, self.start + position - self.whole.near))
        high = max(low, min(self.high, self.stop + position + self.whole.near))
        return low - self.low, (self.high if self.inputs.visibility.causal else high) - self.low

    @cached_property
    def near_distance(self) -> Tensor:
        """|i - j| of the near keys, [query, key]."""
        low, high = self.near
        return self.offsets(low, high).abs()

    def offsets(self, low: int, high: int) -> Tensor:
        """i - j for keys low..high-1 (relative to self.low), [query, key]."""
        options = {"device": self.device, "dtype": self.whole.dtype}
        query = torch.arange(self.start, self.stop, **options)[:, None] + self.inputs.visibility.offset
        return query - torch.arange(self.low + low, self.low + high, **options)

    @cached_property
    def linear(self) -> Tensor:
        """[batch, kv_head or 1, key, column] with the far columns of this block written in."""
        assert self.whole.linear is not None
        columns = self.whole.linear[self.batches, :, self.low : self.high]
        near_low, near_high = self.near
        first = self.start + self.inputs.visibility.offset - self.low
        for side, region, anchor, sign in (
            ("left", slice(0, near_low), first, 1),
            ("right", slice(near_high, self.high - self.low), first + self.stop - self.start - 1, -1),
        ):
            if side in self.whole.columns:
                here = columns[..., self.whole.columns[side]]
                here.zero_()
                keys = torch.arange(region.start, region.stop, device=self.device, dtype=self.whole.dtype)
                gap = sign * (anchor - keys)
                here[..., region, :] = torch.stack([torch.ones_like(gap), gap, gap.square()], dim=-1)
        return columns

    @cached_property
    def real(self) -> Tensor:
        """[batch, query], 1 for queries that count."""
        return self.inputs.real_queries()[self.batches, self.start : self.stop].to(self.whole.dtype)

    @cached_property
    def column_rows(self) -> tuple[Tensor, int]:
        """Rows whose product with the weights gives key statistics, [batch, row, query]: groups (or all), then map rows."""
        rows = self.real[:, None]
        if "received_by_group" in self.whole.needs:
            labels = self.inputs.labels("query")[self.batches, self.start : self.stop]
            groups = (labels[..., None] == self.whole.query_labels).to(rows.dtype)
            rows = groups.mT * rows
        count = rows.shape[1]
        if "pooled_mean" in self.whole.needs:
            index = torch.arange(self.stop - self.start, device=self.device) // BLOCK_SIZE
            members = torch.nn.functional.one_hot(index).to(rows.dtype).mT
            rows = torch.cat([rows, members * self.real[:, None]], dim=1)
        return rows, count

    def same_token(self, shift: int) -> Tensor:
        """[batch, 1, 1, query, key], 1 where key j - shift holds the query's token and is another position."""
        query, key = self.inputs.query_tokens, self.inputs.key_tokens
        if query is None or key is None:
            raise ValueError("duplicate_mass and induction_mass compare tokens: pass query_tokens and key_tokens")
        before = torch.nn.functional.pad(key[self.batches], (shift, 0), value=-1)[:, self.low : self.high]
        same = query[self.batches, self.start : self.stop, None] == before[:, None]
        same &= (before >= 0)[:, None]
        itself = self.start + self.inputs.visibility.offset + shift - self.low
        torch.diagonal(same, itself, dim1=1, dim2=2).fill_(False)
        return same[:, None, None].to(self.whole.dtype)

    def count_seen(self, keys: Tensor) -> Tensor:
        """How many of the marked keys [batch, 1, 1, query, key] each query can see, [batch, 1, 1, query]."""
        count = keys.sum(-1)
        for low, high, hidden in self.hidden:
            count = count - (keys[..., low:high] * hidden[:, None, None]).sum(-1)
        return count

    @cached_property
    def duplicates(self) -> Tensor:
        """Keys with the query's own token."""
        return self.same_token(0)

    @cached_property
    def continuations(self) -> Tensor:
        """Keys right behind the query's own token."""
        return self.same_token(1)

    def tiles(self) -> Iterator[Tile]:
        """The heads of this block, as many together as fit."""
        _, heads, _, _ = self.inputs.shape
        repeats, kv_heads = self.inputs.repeats, heads // self.inputs.repeats
        elements = (self.batches.stop - self.batches.start) * (self.stop - self.start) * (self.high - self.low)
        fit = max(1, TILE_ELEMENTS // max(1, elements))
        kv_step, repeat_step = (max(1, fit // repeats), repeats) if fit >= repeats else (1, fit)
        for kv in range(0, kv_heads, kv_step):
            for repeat in range(0, repeats, repeat_step):
                yield Tile(
                    self, slice(kv, min(kv_heads, kv + kv_step)), slice(repeat, min(repeats, repeat + repeat_step))
                )


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
        """shifted = (z - max z) log2 e, with z from centred keys and masked cells at FLOOR."""
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
            logits += self._bias(whole.inputs.bias) * BITS
        for low, high, hidden in block.hidden:
            logits[..., low:high].masked_fill_(hidden[:, None, None], FLOOR)
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
            product = torch.bmm(self.weights.view(batch, -1, keys), columns[:, 0])
        else:
            columns = columns[:, self.kv_heads].reshape(batch * kv_heads, keys, -1)
            product = torch.bmm(self.weights.view(batch * kv_heads, repeats * rows, keys), columns)
        return product.view(batch, kv_heads, repeats, rows, -1) * self.norm[..., None]

    def columns(self, name: str) -> Tensor:
        """The linear statistics called `name`, [batch, kv_head, repeat, query, column]."""
        return self.linear[..., self.block.whole.columns[name]]

    @cached_property
    def column_sums(self) -> Tensor:
        """Sums over queries of the normalised weights for each of the block's column rows, [..., row, key]."""
        rows, _ = self.block.column_rows
        batch, kv_heads, repeats, queries, keys = self.shape
        scaled = rows[:, None, None] * self.norm[..., None, :]
        product = torch.bmm(scaled.view(-1, rows.shape[1], queries), self.weights.view(-1, queries, keys))
        return product.view(batch, kv_heads, repeats, rows.shape[1], keys)

    @cached_property
    def block_maxima(self) -> Tensor:
        """Largest weight of each query in each block of keys, not normalised, [..., query, key block]."""
        whole = self.shape[-1] - self.shape[-1] % BLOCK_SIZE
        maxima = self.weights[..., :whole].unflatten(-1, (-1, BLOCK_SIZE)).amax(-1)
        if whole < self.shape[-1]:
            maxima = torch.cat([maxima, self.weights[..., whole:].amax(-1, keepdim=True)], dim=-1)
        return maxima

    def dot(self, other: Tensor) -> Tensor:
        """sum_j weights_j other_j, normalised; `other` broadcasts to the tile."""
        scratch = self.block.whole.buffer(2, *self.shape)
        return torch.mul(self.weights, other, out=scratch).sum(-1) * self.norm

    def near_dot(self, values: Tensor) -> Tensor:
        """sum over the near keys of weights times values [query, near key], normalised."""
        low, high = self.block.near
        return (self.weights[..., low:high] * values).sum(-1) * self.norm

    def seen_shifted(self) -> Iterator[Tensor]:
        """(z - peak) log2 e over the visible keys, in pieces of the key axis; hidden cells are 0."""
        first, last = 0, self.shape[-1]
        for low, high, hidden in self.block.hidden:
            yield self.shifted[..., low:high].masked_fill(hidden[:, None, None], 0.0)
            first, last = (high, last) if low == 0 else (first, low)
        if first < last:
            yield self.shifted[..., first:last]
