"""One attention call made ready for streaming: centred float keys, and the columns of all its linear statistics.

Softmax does not see a shift that all keys share, float32 does: keys are centred by their mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import AttentionInputs
from .stats import BLOCK_SIZE, parameters

ROW_BLOCK = 256
"""Queries of one tile; a multiple of BLOCK_SIZE."""
TILE_ELEMENTS = 1 << 20
"""Elements of one tile: 4 MB in float32 stay in a CPU's cache."""
NEAR_FIELDS = ("window_mass", "clipped_distance")
"""Statistics whose parameter says how many tokens around a query must be looked at one by one."""
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
        self.near = max([0, *(n for base in NEAR_FIELDS for _, (n,) in parameters(needs, base))])
        self.query_labels = inputs.labels("query").unique()
        self.columns: dict[str, slice] = {}
        self.linear = self._linear_columns()
        self.buffers = torch.empty(3, 0, dtype=dtype, device=key.device)

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
        size = 1
        for extent in shape:
            size *= extent
        if self.buffers.shape[1] < size:
            self.buffers = self.buffers.new_empty(3, size)
        return self.buffers[index, :size].view(shape)
