"""Key and block statistics: what the queries of a tile add to each key, and the cells of their blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .counts import block_count
from .distances import band_mean
from .prepared import BITS, Prepared
from .rows import spread
from .stats import BLOCK_SIZE, NOTHING, split_name
from .tile import Tile


def _received_information(tile: Tile, _: str, sums: Tensor) -> None:
    """sums [..., (sum_i p_ij, sum_i p_ij log2 p_ij), key], log2 p = shifted + log2 norm."""
    sums[..., 0, :].add_(tile.received_by_label.sum(-2))
    sums[..., 1, :].add_(tile.column_sums[..., -1, :]).add_(tile.over_queries(tile.information))


def received_entropy(received: Tensor, information: Tensor) -> Tensor:
    """ln C - sum_i p ln p / C in nats, from C = sum_i p and sum_i p log2 p; 0 where C is nothing."""
    some = received.clamp(min=NOTHING)
    return torch.where(received > NOTHING, (some.log2() - information / some) / BITS, 0.0)


def _by_query_blocks(tile: Tile, values: Tensor) -> Tensor:
    """values [..., query, key block], normalised, of real queries alone, as [..., query block, query, key block]."""
    values = values * tile.share[..., None]
    if missing := -tile.shape[3] % BLOCK_SIZE:
        values = torch.nn.functional.pad(values, (0, 0, 0, missing))
    return values.unflatten(-2, (-1, BLOCK_SIZE))


KEYS: dict[str, Callable[[Tile, str, Tensor], object]] = {
    "received": lambda tile, _, sums: sums.add_(tile.received_by_label.sum(-2)),
    "received_by_group": lambda tile, _, sums: sums.add_(tile.received_by_label),
    "received_entropy": _received_information,
    "future_average": lambda tile, name, sums: tile.block.distances.add_band(tile, name, sums),
}
"""Key statistics: each adds one tile's share to the sums of its keys, [batch, kv_head, repeat, ..., key]."""

MAPS: dict[str, Callable[[Tile], Tensor]] = {
    "pooled_mean": lambda tile: _by_query_blocks(tile, tile.by_blocks("sum")).sum(-2),
    "pooled_max": lambda tile: _by_query_blocks(tile, tile.block_maxima).amax(-2),
}
"""Block statistics: [batch, kv_head, repeat, query block, key block] of one tile; means are taken at the end."""


class Keys:
    """The key and block statistics of a call, [batch, kv_head, repeat, ...], filled tile by tile."""

    def __init__(self, whole: Prepared) -> None:
        self.whole = whole
        _, _, queries, keys = whole.inputs.shape
        blocks = (-(-queries // BLOCK_SIZE), -(-keys // BLOCK_SIZE))
        self.values: dict[str, Tensor] = {}
        for name in whole.needs:
            base, _ = split_name(name)
            tail = blocks if base in MAPS else (keys,)
            if base == "received_by_group":
                tail = (len(whole.query_labels), keys)
            if base == "received_entropy":
                tail = (2, keys)
            if base in KEYS or base in MAPS:
                self.values[name] = whole.new_zeros(*whole.query.shape[:3], *tail)

    def collect(self, tile: Tile) -> None:
        """Add what one tile says."""
        block = tile.block
        for name, values in self.values.items():
            base, _ = split_name(name)
            here = values[tile.place[:3]]
            if base in KEYS:
                KEYS[base](tile, name, here[..., block.low : block.high])
                continue
            cells = MAPS[base](tile)
            row, column = block.start // BLOCK_SIZE, block.low // BLOCK_SIZE
            here[..., row : row + cells.shape[-2], column : column + cells.shape[-1]] = cells

    def field(self, name: str) -> Tensor:
        """One statistic, sums turned into means where it is one, [batch, head, ...]."""
        base, arguments = split_name(name)
        inputs, values = self.whole.inputs, self.values[name].flatten(1, 2)
        if base == "received_by_group":
            return spread(values.mT, self.whole.query_labels, inputs.group_count)
        if base == "received_entropy":
            return received_entropy(*values.unbind(-2))
        if base == "future_average":
            return band_mean(inputs, values, *map(int, arguments))
        if base == "pooled_mean":
            return values / block_count(inputs).clamp(min=1)[:, None, :, None]
        return values
