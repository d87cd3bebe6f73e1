"""Statistics of the distance |i - j| in the plain path: near keys are summed one by one, far keys by a matrix product.

    rows   mean_distance, mean_square_distance, clipped_distance, window_mass   sum_j p_ij f(|i - j|)
    keys   future_average                                                       mean of p_ij over low <= i - j <= high

Near are the keys that a block of queries stands on, and as many around them as the largest limit or width: all terms
are positive, so nothing cancels. Beyond, |i - j| = edge_i + gap_j, `edge` from the query to the first (or last) of its
block and `gap` from there to the key, so each f is a polynomial: sum_j w_ij, sum_j w_ij gap_j and sum_j w_ij gap_j^2
are three columns of the product that a tile forms anyway (`Tile.linear`), and `concluded` puts edges and sums together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .counts import band_count
from .inputs import AttentionInputs
from .stats import parameters, split_name

if TYPE_CHECKING:
    from .block import Block
    from .prepared import Prepared
    from .rows import Rows
    from .tile import Tile

NEAR: dict[str, Callable[..., Tensor]] = {
    "mean_distance": lambda distance: distance,
    "mean_square_distance": lambda distance: distance.square(),
    "clipped_distance": lambda distance, limit: distance.clamp(max=limit),
    "window_mass": lambda distance, width: (distance < width).to(distance.dtype),
}
"""f of these statistics, by (distance, parameter)."""
FAR: dict[str, Callable[..., Tensor]] = {
    "mean_distance": lambda edge, mass, gap, square: edge * mass + gap,
    "mean_square_distance": lambda edge, mass, gap, square: edge.square() * mass + 2 * edge * gap + square,
    "clipped_distance": lambda edge, mass, gap, square, limit: limit * mass,
}
"""sum_j w_ij f(edge_i + gap_j), by (edge, sum w, sum w gap, sum w gap^2, parameter); a window holds no far key."""
FAR_COLUMNS = 3


def far_sides(inputs: AttentionInputs, needs: frozenset[str]) -> tuple[str, ...]:
    """The sides of a block on which far keys may lie."""
    if not any(split_name(name)[0] in FAR for name in needs):
        return ()
    return ("left",) if inputs.visibility.causal else ("left", "right")


class Distances:
    """The distances from the queries of one block to its keys: made once, for all heads; it does not keep the block."""

    def __init__(self, block: Block) -> None:
        whole = block.whole
        bases = () if whole.compiled else NEAR
        asked = [(name, base, words) for base in bases for name, words in parameters(whole.needs, base)]
        reach = max((word for _, _, words in asked for word in words), default=0)
        self.low, self.high = _keys(block, reach, reach)
        distance = block.offsets(self.low, self.high).abs()
        self.factors = {name: NEAR[base](distance, *words) for name, base, words in asked}
        self.bands = {name: _band(block, *words) for name, words in parameters(whole.needs, "future_average")}

    def near(self, tile: Tile, name: str) -> Tensor:
        """sum_j w_ij f(|i - j|) over near keys, [batch, kv_head, repeat, query]."""
        scratch = tile.block.whole.buffer("scratch", *tile.shape[:-1], self.high - self.low)
        return torch.mul(tile.weights[..., self.low : self.high], self.factors[name], out=scratch).sum(-1)

    def write_far(self, block: Block, columns: Tensor) -> None:
        """1, gap and gap^2 of far keys, 0 for near ones, into their columns of [batch, column, key]."""
        query, key = block.positions
        for side, far, gap in (
            ("left", slice(0, self.low), query[0] - key),
            ("right", slice(self.high, len(key)), key - query[-1]),
        ):
            if side in block.whole.columns:
                here = columns[:, block.whole.columns[side]]
                here.zero_()
                here[..., far] = torch.stack([torch.ones_like(gap), gap, gap.square()])[:, far]

    def add_band(self, tile: Tile, name: str, sums: Tensor) -> None:
        """Add sum_i p_ij over the real queries of the band to sums [..., key]."""
        first, last, band = self.bands[name]
        scratch = tile.block.whole.buffer("scratch", *tile.shape[:-1], last - first)
        inside = torch.mul(tile.weights[..., first:last], band, out=scratch)
        sums[..., first:last].add_(tile.over_queries(inside))


def _keys(block: Block, back: int, ahead: int) -> tuple[int, int]:
    """Keys, relative to the block's, from `back` before its first query to `ahead` behind its last."""
    position, size = block.inputs.visibility.offset - block.low, block.high - block.low
    low = max(0, min(size, block.start + position - back))
    return low, max(low, min(size, block.stop + position + ahead))


def _band(block: Block, low: int, high: int) -> tuple[int, int, Tensor]:
    """(first key, last key, [query, key] 1 where low <= i - j <= high)."""
    first, last = _keys(block, high, -low)
    gap = block.offsets(first, last)
    return first, last, ((gap >= low) & (gap <= high)).to(gap.dtype)


def concluded(rows: Rows, name: str, words: tuple[str, ...]) -> Tensor:
    """sum_j p_ij f(|i - j|) of all keys, near and far, [batch, kv_head, repeat, query]."""
    base, whole, total = split_name(name)[0], rows.whole, rows.sums[name]
    for side in ("left", "right"):
        if base in FAR and side in whole.columns:
            far = rows.sums["linear"][..., whole.columns[side]].unbind(-1)
            total = total + FAR[base](_edge(whole, side), *far, *map(int, words))
    return total * rows.norm


def _edge(whole: Prepared, side: str) -> Tensor:
    """Distance of each query to the first (or last) query of its block, [query]."""
    queries = torch.arange(whole.query.shape[3], device=whole.query.device)
    place, rows = queries % whole.row_block(), whole.row_block()
    edge = place if side == "left" else torch.minimum(rows - 1 - place, len(queries) - 1 - queries)
    return edge.to(whole.dtype)


def band_mean(inputs: AttentionInputs, sums: Tensor, low: int, high: int) -> Tensor:
    """Sums [batch, head, key] of a band over the number of its real queries, 0 where there is none."""
    count = band_count(inputs, low, high).to(sums.dtype)[:, None]
    return torch.where(count > 0, sums / count.clamp(min=1), 0.0)
