"""Attention statistics block by block in plain torch: exact, O(n) memory, any device.

A tile is a block of queries against all keys they can see, small enough to stay in cache: its softmax needs no
rescaling, and each asked-for statistic is one pass over it. Cost per cell of a tile (a block of queries times its range
of keys, hidden cells in it too): 2 d FLOPs for q.k, one exponential, a read or two and a write for peak, shift and sum,
2 C FLOPs for the C linear statistics (groups, norms, far distances) of one matrix product, 2 for each label of received
attention, 2 d_value for the output, and one or two reads per elementwise statistic. Keys are centred tile by tile, d
subtractions a key: softmax does not see a common shift, float32 does.
Adding a statistic: a row in stats.FIELDS, its definition in reference.py, and a sum and its conclusion
in rows.py or a line in keys.py; CONTRIBUTING.md has the Triton side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .aligned import with_aligned_maps
from .block import blocks_of
from .inputs import AttentionInputs
from .keys import Keys
from .prepared import Prepared
from .rows import Rows
from .selected import centred, selected, selected_stats
from .tile import tiles_of


def streaming_stats(
    inputs: AttentionInputs, needs: frozenset[str], *, dtype: torch.dtype = torch.float32, compiled: bool = False
) -> dict[str, Tensor]:
    """Every field of `needs`, computed in `dtype` whatever the precision of the inputs.

    `compiled` forms the elementwise sums of a tile in one pass that torch compiles on first use (`compiled.py`).
    """
    return with_aligned_maps(lambda call, names, _: _streamed(call, names, dtype, compiled), inputs, needs)


def _streamed(inputs: AttentionInputs, needs: frozenset[str], dtype: torch.dtype, compiled: bool) -> dict[str, Tensor]:
    """Every field of `needs`, block maps counted by position."""
    beside = selected(needs)
    swept = {*needs - beside, "visible_keys"}
    if "output_norm" in needs:
        swept = {*swept - {"output_norm"}, "output"}
    whole = Prepared(inputs, frozenset(swept), dtype, compiled=compiled)
    rows, keys = Rows(whole), Keys(whole)
    _sweep(whole, rows, keys)
    whole.buffers.clear()
    found = {name: keys.field(name) if name in keys.values else rows.field(name) for name in swept}
    if beside:
        found |= selected_stats(centred(inputs, dtype), beside, rows.centred_logsumexp())
    if "output_norm" in needs:
        found["output_norm"] = found["output"].norm(dim=-1)
    return {name: found[name] for name in needs | {"visible_keys"}}


def _sweep(whole: Prepared, rows: Rows, keys: Keys) -> None:
    """Every tile once, added to the sums."""
    for block in blocks_of(whole):
        rows.enter(block)
        for tile in tiles_of(block):
            rows.collect(tile)
            keys.collect(tile)
            del tile  # its weights, before the next one's are made
