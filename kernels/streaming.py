"""Attention statistics block by block in plain torch: exact, O(n) memory, any device.

A tile is a block of queries against all keys they can see, small enough to stay in cache: its softmax needs no
rescaling, and each asked-for statistic is one pass over it. Cost per visible (query, key) pair and head: 2 d FLOPs for
q.k, one exponential, 2 C FLOPs for the C linear statistics (groups, norms, far distances) of one matrix product, and
one read per elementwise statistic. Keys are centred first: softmax does not see a common shift, float32 does.
Adding a statistic: a row in stats.FIELDS, its definition in reference.py, and one function in formulas.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .block import blocks_of
from .counts import band_count, block_count
from .formulas import KEYS, MAPS, ROWS
from .inputs import AttentionInputs
from .prepared import Prepared
from .stats import BLOCK_SIZE, split_name
from .tile import Tile, tiles_of


def streaming_stats(
    inputs: AttentionInputs, needs: frozenset[str], *, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Every field of `needs`, computed in `dtype` whatever the precision of the inputs."""
    whole = Prepared(inputs, needs | {"visible_keys"}, dtype)
    out = {name: _allocate(whole, name) for name in whole.needs}
    for block in blocks_of(whole):
        for tile in tiles_of(block):
            for name, values in out.items():
                _write(name, values, tile)
    return {name: _finish(name, values, whole) for name, values in out.items()}


def _allocate(whole: Prepared, name: str) -> Tensor:
    """The result of one field, [batch, kv_head, repeat, ...], holding what an empty row holds."""
    base, _ = split_name(name)
    inputs = whole.inputs
    batch, heads, queries, keys = inputs.shape
    tail = (keys,) if base in KEYS else (queries,)
    if base in MAPS:
        tail = (-(-queries // BLOCK_SIZE), -(-keys // BLOCK_SIZE))
    elif base in ("group_mass", "value_weighted_mass"):
        tail = (*tail, len(whole.key_labels))
    elif base == "received_by_group":
        tail = (len(whole.query_labels), *tail)
    elif base == "output":
        tail = (*tail, inputs.value.shape[-1])  # type: ignore[union-attr]
    dtype = torch.long if base.endswith(("_keys", "_key")) else whole.dtype
    fill = -torch.inf if base in ("logsumexp", "max_logit") else 0
    shape = (batch, heads // inputs.repeats, inputs.repeats, *tail)
    return torch.full(shape, fill, dtype=dtype, device=inputs.query.device)


def _write(name: str, values: Tensor, tile: Tile) -> None:
    """Put one tile's share of a field where it belongs."""
    base, arguments = split_name(name)
    block = tile.block
    here = values[tile.heads]
    if base in ROWS:
        here[:, :, :, block.start : block.stop] = ROWS[base](tile, arguments)
    elif base in KEYS:
        here[..., block.low : block.high] += KEYS[base](tile, arguments)
    else:
        pooled = MAPS[base](tile, arguments)
        row, column = block.start // BLOCK_SIZE, block.low // BLOCK_SIZE
        here[..., row : row + pooled.shape[-2], column : column + pooled.shape[-1]] = pooled


def _finish(name: str, values: Tensor, whole: Prepared) -> Tensor:
    """Join kv_head and repeat into head, and turn sums into means where the field is one."""
    base, arguments = split_name(name)
    values = values.flatten(1, 2)
    if base in ("group_mass", "value_weighted_mass"):
        return _spread(values, whole.key_labels, whole.inputs.group_count)
    if base == "received_by_group":
        return _spread(values.mT, whole.query_labels, whole.inputs.group_count)
    if base == "future_average":
        count = band_count(whole.inputs, *map(int, arguments)).to(values.dtype)[:, None]
        values = torch.where(count > 0, values / count.clamp(min=1), 0.0)
    elif base == "pooled_mean":
        values = values / block_count(whole.inputs).clamp(min=1)[:, None, :, None]
    return values


def _spread(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """values [..., label that occurs] as [..., group], 0 for the others."""
    if len(labels) == count:
        return values.contiguous()
    return values.new_zeros(*values.shape[:-1], count).index_copy_(-1, labels, values)

