"""Statistics of a band of offsets, given logsumexp, in Triton: only the key blocks that touch the band are read.

    rows   window_mass      sum_j p_ij   over |i - j| < width
    keys   future_average   sum_i p_ij   over low <= i - j <= high, divided by the number of i on the host

A grid axis runs over the asked-for variants. Cost per (query, head): 2 d FLOPs and 1 exp2 for each key of the blocks
that the band touches, so for a narrow band about 160.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_scores import HIDDEN, in_bits, key_range, load_keys, load_rows, visible


@triton.jit
def weights(call, given, q, k, batch, head, query, key, PRECISION: tl.constexpr):
    """p [row, key], 0 where hidden."""
    place = (batch * call.heads + head) * call.queries + query
    known = tl.load(given + place, mask=query < call.queries, other=0.0)
    products = tl.dot(q, k, input_precision=PRECISION)
    z = in_bits(call, products, batch, head, query[:, None], key[None, :])
    seen = visible(call, batch, query[:, None], key[None, :]) & (known > HIDDEN)[:, None]
    return tl.exp2(tl.where(seen, z - known[:, None], HIDDEN))


@triton.jit
def row_bands(
    call,
    given,  # logsumexp in bits, of centred keys, [batch, head, query]
    widths,  # int32 [variant]
    mass,  # [variant, batch, head, query]
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (row blocks, batch * head, variant)."""
    pair = tl.program_id(1).to(tl.int64)
    batch, head = pair // call.heads, pair % call.heads
    first = tl.program_id(0) * BLOCK_Q
    last = tl.minimum(first + BLOCK_Q, call.queries) - 1
    query = first + tl.arange(0, BLOCK_Q)
    width = tl.load(widths + tl.program_id(2))
    q = load_rows(call, batch, head, query, BLOCK_D, D)
    total = tl.zeros([BLOCK_Q], tl.float32)
    low, high = key_range(call, first, last)
    low = tl.maximum(low, first + call.offset - width + 1) // BLOCK_K * BLOCK_K
    high = tl.minimum(high, last + call.offset + width)
    for start in range(low, high, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        k = load_keys(call, batch, head // call.repeats, start, BLOCK_K, BLOCK_D, D)
        p = weights(call, given, q, k, batch, head, query, key, PRECISION)
        apart = tl.abs((query[:, None] + call.offset) - key[None, :])
        total += tl.sum(tl.where(apart < width, p, 0.0), 1)
    here = tl.program_id(2).to(tl.int64) * tl.num_programs(1) * call.queries + pair * call.queries + query
    tl.store(mass + here, total, mask=query < call.queries)


@triton.jit
def key_bands(
    call,
    given,  # logsumexp in bits, of centred keys, [batch, head, query]
    bounds,  # int32 [variant, 2]: low, high
    real,  # int8 [batch, query]; None: all count
    mass,  # [variant, batch, head, key]
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (key blocks, batch * head, variant)."""
    pair = tl.program_id(1).to(tl.int64)
    batch, head = pair // call.heads, pair % call.heads
    first = tl.program_id(0) * BLOCK_K
    key = first + tl.arange(0, BLOCK_K)
    low = tl.load(bounds + 2 * tl.program_id(2))
    high = tl.load(bounds + 2 * tl.program_id(2) + 1)
    k = load_keys(call, batch, head // call.repeats, first, BLOCK_K, BLOCK_D, D)
    total = tl.zeros([BLOCK_K], tl.float32)
    nearest, farthest = tl.maximum(low, -call.after), tl.minimum(high, call.before)
    start_at = tl.maximum(first + nearest - call.offset, 0)
    stop_at = tl.minimum(first + BLOCK_K + farthest - call.offset, call.queries)
    for start in range(start_at, stop_at, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        q = load_rows(call, batch, head, query, BLOCK_D, D)
        p = weights(call, given, q, k, batch, head, query, key, PRECISION)
        counts = query < call.queries
        if real is not None:
            counts = tl.load(real + batch * call.queries + query, mask=counts, other=0) != 0
        gap = (query[:, None] + call.offset) - key[None, :]
        inside = (gap >= low) & (gap <= high) & counts[:, None]
        total += tl.sum(tl.where(inside, p, 0.0), 0)
    here = tl.program_id(2).to(tl.int64) * tl.num_programs(1) * call.keys + pair * call.keys + key
    tl.store(mass + here, total, mask=key < call.keys)
