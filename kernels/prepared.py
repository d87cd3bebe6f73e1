"""One attention call made ready for streaming: the centre of its keys, and the columns of all its linear statistics.

Softmax does not see a shift that all keys share, float32 does: each tile takes its keys less their mean.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from .distances import FAR_COLUMNS, far_sides
from .inputs import AttentionInputs
from .matches import Lookup
from .stats import BLOCK_SIZE

ROW_BLOCK = 256
"""Queries of one tile; a multiple of BLOCK_SIZE."""
TILE_ELEMENTS = 1 << 21
"""Elements of one tile, 8 MB in float32: smaller ones stay in cache, larger ones take fewer steps of Python."""
BITS = math.log2(math.e)
"""Bits of a nat."""


class Prepared:
    """One attention call prepared for streaming in `dtype`."""

    def __init__(
        self, inputs: AttentionInputs, needs: frozenset[str], dtype: torch.dtype, *, compiled: bool = False
    ) -> None:
        self.inputs, self.needs, self.dtype, self.compiled = inputs, needs, dtype, compiled
        self.query = inputs.query.unflatten(1, (-1, inputs.repeats))
        self.centre = None if inputs.softcap is not None else inputs.key.mean(2, keepdim=True, dtype=dtype)
        self.value = inputs.value.to(dtype).contiguous() if "output" in needs else None  # type: ignore[union-attr]
        self.query_labels = inputs.labels("query").unique()
        self.columns: dict[str, slice] = {}
        self.linear = self._linear_columns()
        self.buffers: dict[str, Tensor] = {}

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

    @cached_property
    def value_norms(self) -> Tensor:
        """||v_j||, [batch, kv_head, 1, key]."""
        return self.inputs.value.to(self.dtype).norm(dim=-1)[:, :, None]  # type: ignore[union-attr]

    def _linear_columns(self) -> Tensor | None:
        """[batch, column, key]: what weights @ columns.mT must yield, but for what blocks and tiles still write in.

        Groups have a column each where some key carries the label. The far columns are filled in by each block, and
        each tile multiplies the columns of `value_weighted_mass` by the norms of its own values. More than eight
        columns are padded to a multiple of sixteen: that is when a matrix product of few columns is fast.
        """
        parts: list[Tensor] = []
        inputs, dtype = self.inputs, self.dtype
        batch, keys = inputs.labels("key").shape
        labels = inputs.labels("key")
        self.key_labels = labels.unique()
        groups = (labels[:, None] == self.key_labels[:, None]).to(dtype)
        for name in ("group_mass", "value_weighted_mass"):
            if name in self.needs:
                parts.append(groups)
                self._add_column(name, groups.shape[1])
        for side in () if self.compiled else far_sides(inputs, self.needs):
            parts.append(groups.new_zeros(batch, FAR_COLUMNS, keys))
            self._add_column(side, FAR_COLUMNS)
        if not parts:
            return None
        count = sum(part.shape[1] for part in parts)
        spare = -count % 16 if count > 8 else 0
        return torch.cat([*parts, groups.new_zeros(batch, spare, keys)], dim=1)

    def _add_column(self, name: str, count: int) -> None:
        start = max((columns.stop for columns in self.columns.values()), default=0)
        self.columns[name] = slice(start, start + count)

    def row_block(self) -> int:
        """Queries of one block: fewer where a single row of keys is long."""
        keys = self.inputs.shape[3]
        floor = BLOCK_SIZE if self.needs & {"pooled_mean", "pooled_max"} else 16
        rows = ROW_BLOCK
        while rows > floor and 2 * rows * keys > TILE_ELEMENTS:
            rows //= 2
        return rows

    def new_zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros where the call lives, in the dtype of its sums."""
        return torch.zeros(shape, dtype=dtype or self.dtype, device=self.query.device)

    def buffer(self, name: str, *shape: int, at_least: int = 0) -> Tensor:
        """Working memory, reused by every tile; `at_least` elements at once, for growing tile by tile leaves holes."""
        size = math.prod(shape)
        if name not in self.buffers or len(self.buffers[name]) < size:
            self.buffers[name] = torch.empty(max(size, at_least), dtype=self.dtype, device=self.query.device)
        return self.buffers[name][:size].view(shape)


def above_peak(peak: Tensor, total: Tensor, sink: Tensor | None) -> Tensor:
    """logsumexp - peak in bits, from the largest logit and the sum of 2^(z - peak); anything where nothing is seen.

    Apart from the peak, for in the sum of both the digits of a small one are lost beside a large peak.
    """
    keys = total.log2()
    return keys if sink is None else torch.logaddexp2(keys, sink - peak)


def normaliser(peak: Tensor, total: Tensor, sink: Tensor | None) -> Tensor:
    """2^(peak - logsumexp), what turns 2^(z - peak) into probabilities; 0 where nothing is seen."""
    inverse = total.reciprocal() if sink is None else torch.exp2(-above_peak(peak, total, sink))
    return torch.where(total > 0, inverse, 0.0)
