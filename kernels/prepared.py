"""One attention call made ready for streaming: centred float keys, and the columns of all its linear statistics.

Softmax does not see a shift that all keys share, float32 does: keys are centred by their mean.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from .inputs import AttentionInputs
from .matches import Lookup
from .stats import BLOCK_SIZE, split_name

ROW_BLOCK = 256
"""Queries of one tile; a multiple of BLOCK_SIZE."""
TILE_ELEMENTS = 1 << 21
"""Elements of one tile, 8 MB in float32: smaller ones stay in cache, larger ones take fewer steps of Python."""
NEAR_FIELDS = ("mean_distance", "mean_square_distance", "clipped_distance", "window_mass")
"""Statistics that look one by one at the keys of a query's block, and as far beyond as their parameter says."""
BITS = math.log2(math.e)
"""Bits of a nat."""
FAR_COLUMNS = 3
"""Linear columns of one far side: 1, distance, distance squared."""


class Prepared:
    """One attention call prepared for streaming in `dtype`."""

    def __init__(self, inputs: AttentionInputs, needs: frozenset[str], dtype: torch.dtype) -> None:
        self.inputs, self.needs, self.dtype = inputs, needs, dtype
        self.query = inputs.query.unflatten(1, (-1, inputs.repeats))
        key = inputs.key.to(dtype)
        self.centre = None if inputs.softcap is not None else key.mean(2, keepdim=True)
        self.key = (key if self.centre is None else key - self.centre).contiguous()
        self.value = inputs.value.to(dtype).contiguous() if "output" in needs else None  # type: ignore[union-attr]
        self.near_fields = [name for name in sorted(needs) if split_name(name)[0] in NEAR_FIELDS]
        self.near = max([0, *(int(word) for name in self.near_fields for word in split_name(name)[1])])
        self.query_labels = inputs.labels("query").unique()
        self.columns: dict[str, slice] = {}
        self.linear = self._linear_columns()
        self.buffers: dict[int, Tensor] = {}

    @cached_property
    def lookup(self) -> Lookup:
        """The keys' tokens, sorted."""
        assert self.inputs.key_tokens is not None
        return Lookup(self.inputs.key_tokens)

    @cached_property
    def common(self) -> Tensor | float:
        """What centring took from the logits of each row, in nats, [batch, kv_head, repeat, query]."""
        if self.centre is None:
            return 0.0
        return self.inputs.scale * (self.query.to(self.dtype) @ self.centre[:, :, None].mT).squeeze(-1)

    @cached_property
    def sink(self) -> Tensor | None:
        """The learned sink logit of each row, in bits, beside centred keys, [batch, kv_head, repeat, query]."""
        if self.inputs.sink_logits is None:
            return None
        sink = self.inputs.sink_logits.to(self.dtype).unflatten(0, (-1, self.inputs.repeats))
        return ((sink[None, :, :, None] - self.common) * BITS).expand(self.query.shape[:4])

    def edge(self, side: str) -> Tensor:
        """Distance of each query to the first (or last) query of its block, [query]."""
        queries, rows = self.query.shape[3], min(self.row_block(), self.query.shape[3])
        index = torch.arange(queries, device=self.key.device)
        start = index - index % rows
        edge = index - start if side == "left" else (start + rows).clamp(max=queries) - 1 - index
        return edge.to(self.dtype)

    def _linear_columns(self) -> Tensor | None:
        """[batch, kv_head or 1, column, key]: what weights @ columns.mT must yield.

        Groups have a column each where some key carries the label; the far columns are filled in by each block. More
        than eight columns are padded to a multiple of sixteen: that is when a matrix product of few columns is fast.
        """
        parts: list[Tensor] = []
        inputs, dtype = self.inputs, self.dtype
        batch, _, _, keys = inputs.shape
        labels = inputs.labels("key")
        self.key_labels = labels.unique()
        groups = (labels[:, None] == self.key_labels[:, None]).to(dtype)[:, None]
        if "group_mass" in self.needs:
            parts.append(groups)
            self._add_column("group_mass", groups.shape[2])
        if "value_weighted_mass" in self.needs:
            norms = inputs.value.to(dtype).norm(dim=-1)  # type: ignore[union-attr]
            parts.append(groups * norms[:, :, None])
            self._add_column("value_weighted_mass", groups.shape[2])
        if any(name.startswith(("mean_distance", "mean_square", "clipped_distance")) for name in self.needs):
            sides = ("left",) if inputs.visibility.causal else ("left", "right")
            parts.append(groups.new_zeros(batch, 1, FAR_COLUMNS * len(sides), keys))
            for side in sides:
                self._add_column(side, FAR_COLUMNS)
        if not parts:
            return None
        heads = max(part.shape[1] for part in parts)
        count = sum(part.shape[2] for part in parts)
        spare = -count % 16 if count > 8 else 0
        parts.append(groups.new_zeros(batch, 1, spare, keys))
        return torch.cat([part.expand(-1, heads, -1, -1) for part in parts], dim=2)

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

    def buffer(self, index: int, *shape: int) -> Tensor:
        """Working memory number `index`, reused by every tile."""
        size = math.prod(shape)
        if index not in self.buffers or len(self.buffers[index]) < size:
            self.buffers[index] = self.key.new_empty(size)
        return self.buffers[index][:size].view(shape)


def log_normaliser(peak: Tensor, total: Tensor, sink: Tensor | None) -> Tensor:
    """logsumexp in bits from the largest logit and the sum of 2^(z - peak); -inf where nothing is seen."""
    keys = peak + total.log2()
    return keys if sink is None else torch.where(total > 0, torch.logaddexp2(keys, sink), keys)


def normaliser(peak: Tensor, total: Tensor, sink: Tensor | None) -> Tensor:
    """2^(peak - logsumexp), what turns 2^(z - peak) into probabilities; 0 where nothing is seen."""
    if sink is None:
        return torch.where(total > 0, total.reciprocal(), 0.0)
    return torch.where(total > 0, torch.exp2(peak - log_normaliser(peak, total, sink)), 0.0)
