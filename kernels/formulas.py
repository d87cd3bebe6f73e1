"""One function a statistic: what a tile says of it.

Row statistics give [batch, kv_head, repeat, query, ...] of the tile's queries, key statistics what those queries add to
each key, map statistics the cells of its query blocks. All are of normalised weights; `streaming.py` joins the pieces.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .matches import Matches
from .stats import BLOCK_SIZE
from .tile import BITS, Tile

Arguments = tuple[str, ...]


def _logsumexp(tile: Tile, _: Arguments) -> Tensor:
    return tile.logsumexp + tile.common


def _max_logit(tile: Tile, _: Arguments) -> Tensor:
    return torch.where(tile.total > 0, tile.peak + tile.common, -torch.inf)


def _entropy(tile: Tile, _: Arguments) -> Tensor:
    above = torch.where(tile.total > 0, tile.logsumexp - tile.peak, 0.0)
    return above * tile.total * tile.norm - tile.dot(tile.shifted) / BITS


def _sum_squares(tile: Tile, _: Arguments) -> Tensor:
    return (torch.linalg.vector_norm(tile.weights, dim=-1) * tile.norm).square()


def _logit_sum(tile: Tile, _: Arguments) -> Tensor:
    return tile.shifted.sum(-1) / BITS


def _logit_sum_squares(tile: Tile, _: Arguments) -> Tensor:
    return (torch.linalg.vector_norm(tile.shifted, dim=-1) / BITS).square()


def _mean_distance(tile: Tile, _: Arguments) -> Tensor:
    far = [edge * ones + gap for edge, ones, gap, _ in _far(tile)]
    return tile.near("mean_distance") + sum(far)


def _mean_square_distance(tile: Tile, _: Arguments) -> Tensor:
    far = [edge.square() * ones + 2 * edge * gap + square for edge, ones, gap, square in _far(tile)]
    return tile.near("mean_square_distance") + sum(far)


def _far(tile: Tile) -> list[tuple[Tensor, ...]]:
    """Per far side: each query's distance to the block's edge [query], and the sums of 1, gap and gap^2 beyond it."""
    row = torch.arange(tile.shape[3], device=tile.weights.device, dtype=tile.weights.dtype)
    sides = {"left": row, "right": tile.shape[3] - 1 - row}
    present = [(edge, tile.columns(side)) for side, edge in sides.items() if side in tile.block.whole.columns]
    return [(edge, *columns.unbind(-1)) for edge, columns in present]


def _clipped_distance(tile: Tile, arguments: Arguments) -> Tensor:
    far = [int(arguments[0]) * ones for _, ones, _, _ in _far(tile)]
    return tile.near(f"clipped_distance:{arguments[0]}") + sum(far)


def _weight_at(tile: Tile, arguments: Arguments) -> Tensor:
    block = tile.block
    target = block.inputs.targets[arguments[0]][block.batches, block.start : block.stop] - block.low
    inside = (target >= 0) & (target < tile.shape[-1])
    index = target.clamp(0, tile.shape[-1] - 1)[:, None, None, :, None].expand(*tile.shape[:4], 1)
    return tile.weights.gather(-1, index).squeeze(-1) * tile.norm * inside[:, None, None]


def _count(tile: Tile, matches: Matches) -> Tensor:
    return matches.count[:, None, None].expand(tile.shape[:4])


def _argmax_key(tile: Tile, _: Arguments) -> Tensor:
    """The block that holds the maximum first, then the key inside it: an argmax over all keys is slow."""
    if tile.shape[-1] < 4 * BLOCK_SIZE:
        return tile.weights.argmax(-1) + tile.block.low
    columns = tile.block_maxima.argmax(-1, keepdim=True)
    first = (columns * BLOCK_SIZE).clamp(max=tile.shape[-1] - BLOCK_SIZE)
    keys = first + torch.arange(BLOCK_SIZE, device=first.device)
    inside = tile.weights.gather(-1, keys).argmax(-1)
    return first.squeeze(-1) + inside + tile.block.low


def _output(tile: Tile, _: Arguments) -> Tensor:
    block, (batch, kv_heads, repeats, rows, keys) = tile.block, tile.shape
    value = block.whole.value[block.batches, tile.kv_heads, block.low : block.high]  # type: ignore[index]
    product = torch.bmm(
        tile.weights.view(batch * kv_heads, repeats * rows, keys), value.reshape(batch * kv_heads, keys, -1)
    )
    return product.view(batch, kv_heads, repeats, rows, -1) * tile.norm[..., None]


ROWS: dict[str, Callable[[Tile, Arguments], Tensor]] = {
    "visible_keys": lambda tile, _: tile.block.visible_keys[:, None, None].expand(tile.shape[:4]),
    "logsumexp": _logsumexp,
    "max_logit": _max_logit,
    "max_weight": lambda tile, _: tile.norm,
    "argmax_key": _argmax_key,
    "row_mass": lambda tile, _: tile.total * tile.norm,
    "entropy": _entropy,
    "sum_squares": _sum_squares,
    "logit_sum": _logit_sum,
    "logit_sum_squares": _logit_sum_squares,
    "mean_distance": _mean_distance,
    "mean_square_distance": _mean_square_distance,
    "clipped_distance": _clipped_distance,
    "window_mass": lambda tile, arguments: tile.near(f"window_mass:{arguments[0]}"),
    "duplicate_mass": lambda tile, _: tile.block.duplicates.mass(tile),
    "induction_mass": lambda tile, _: tile.block.continuations.mass(tile),
    "duplicate_keys": lambda tile, _: _count(tile, tile.block.duplicates),
    "induction_keys": lambda tile, _: _count(tile, tile.block.continuations),
    "weight_at": _weight_at,
    "group_mass": lambda tile, _: tile.columns("group_mass"),
    "value_weighted_mass": lambda tile, _: tile.columns("value_weighted_mass"),
    "output": _output,
}
"""Row statistics: each returns [batch, kv_head, repeat, query, ...] for one tile."""


def _received(tile: Tile, _: Arguments) -> Tensor:
    return tile.column_sums.sum(-2)


def _future(tile: Tile, arguments: Arguments) -> Tensor:
    """Sum over the real queries of the band; `_finish` divides by their number."""
    low, high = map(int, arguments)
    block = tile.block
    position = block.inputs.visibility.offset - block.low
    first = max(0, block.start + position - high)
    last = max(first, min(tile.shape[-1], block.stop + position - low))
    band = block.once(f"band {low} {high}", lambda: _band(block.offsets(first, last), low, high))
    sums = tile.weights.new_zeros(*tile.shape[:3], tile.shape[-1])
    scratch = block.whole.buffer(2, *tile.shape[:-1], last - first)
    inside = torch.mul(tile.weights[..., first:last], band, out=scratch)
    sums[..., first:last] = ((tile.norm * block.real[:, None, None])[..., None, :] @ inside).squeeze(-2)
    return sums


def _band(offsets: Tensor, low: int, high: int) -> Tensor:
    return ((offsets >= low) & (offsets <= high)).to(offsets.dtype)


def _pooled_mean(tile: Tile, _: Arguments) -> Tensor:
    """Sums over each block pair; `_finish` divides by the number of real queries."""
    return _by_query_blocks(tile, tile.by_blocks(torch.sum)).sum(-2)


def _pooled_max(tile: Tile, _: Arguments) -> Tensor:
    return _by_query_blocks(tile, tile.block_maxima).amax(-2)


def _by_query_blocks(tile: Tile, values: Tensor) -> Tensor:
    """values [..., query, key block], normalised, of real queries alone, as [..., query block, query, key block]."""
    values = (values * (tile.norm * tile.block.real[:, None, None])[..., None]).transpose(-1, -2)
    padded = torch.nn.functional.pad(values, (0, -tile.shape[3] % BLOCK_SIZE))
    return padded.unflatten(-1, (-1, BLOCK_SIZE)).movedim(-3, -1)


KEYS: dict[str, Callable[[Tile, Arguments], Tensor]] = {
    "received": _received,
    "received_by_group": lambda tile, _: tile.column_sums,
    "future_average": _future,
}
"""Key statistics: each returns what one tile adds, [batch, kv_head, repeat, ..., key]."""

MAPS: dict[str, Callable[[Tile, Arguments], Tensor]] = {"pooled_mean": _pooled_mean, "pooled_max": _pooled_max}
"""Block statistics: [batch, kv_head, repeat, query block, key block] of one tile."""
