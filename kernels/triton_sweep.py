"""One sweep over the visible (query, key) pairs of a call, in Triton: every statistic that a tile of weights yields.

It is flash attention with other sums in place of P V. A program takes a block of rows and walks over the blocks of keys
they can see: blocks outside the band are skipped, only its edges are masked (with padding every block is). Two ways to
have the weights, with `peak`, `total` and `summed` what flash attention calls m, l and acc:

    online   logsumexp unknown   x = z - peak so far; on a new peak all sums shrink by 2^(old peak - new peak)
    given    logsumexp known     x = z - logsumexp; weights are final at once: rows, keys and block maps in one pass

`given` comes from an online sweep, or from the SDPA call that the model makes anyway: the fused form. What is summed
over queries (received attention) needs no atomics: a program adds, row block after row block, to a slice that no other
program touches, and the host adds up the slices in one order. So results are deterministic, in O(n) memory.

Cost per visible pair and head, in instructions of a lane; products on tensor cores and exp2 run beside them. Always:
z - peak, exp2 and total 3, online the peak 1 more. On top, only where asked for: entropy 1, sum_squares 1, argmax_key
3, logit sums 2 or 3, distances 1 or 2 and 4 to 6 near the row, tokens 3 each, groups 4 once, value_weighted_mass 5,
received and received_entropy 2 each, pooled about 0.3 each; soft-cap 1 exp2, 1 division and 4. A mask adds 4. FLOPs of
tensor cores: 2 d_head of q.k (d_head up to the next power of two; three tf32 products in float32), groups 2 x 32,
received 2 x 16, output 2 d_value. `benchmarks/instructions.py` counts them in the machine code.
Bytes: queries once; keys, and values for output, once per block of rows and head (or pack of heads), mostly from L2; a
bias 4 per pair; 4 a row and statistic, 64 for 16 groups, 4 d_value for output; received 8 per key and block of rows, in
L2 while the slices of the running programs fit there (4 n bytes each), and once more to fill and to add them up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .triton_scores import (
    FLOOR,
    HIDDEN,
    LN2,
    in_bits,
    key_range,
    load_keys,
    load_rows,
    open_range,
    visible,
)
from .triton_tile import (
    GROUPS,
    PARTS,
    UNIT,
    by_query_group,
    columns,
    distances,
    halves,
    in_parts,
    moved,
    over_rows,
    paid_to_equals,
    sums_by_group,
    whole,
)

CELL = tl.constexpr(64)
"""Rows and keys of a cell of the block maps."""


class Marks(NamedTuple):
    """What is known of tokens; None where no statistic that is asked for reads it."""

    key_group: Any  # int8 [batch, key]
    query_group: Any  # int8 [batch, query]
    real: Any  # int8 [batch, query], 1 where a query counts for keys and blocks; None: all do
    query_token: Any  # int32 [batch, query], -2 equals nothing
    key_token: Any  # int32 [batch, key], -1 equals nothing
    token_before: Any  # int32 [batch, key], the token one place earlier
    value: Any  # [batch, kv_head, key, d_value], dense
    value_norm: Any  # float32 [batch, kv_head, key], relative to the largest
    sink: Any  # float32 [batch, head, query], the learned sink logit in bits, relative to centred keys
    groups: int  # groups that there are, GROUPS at most
    limit: Any  # where clipped_distance stops counting


class Out(NamedTuple):
    """Where each statistic goes, [batch, head, query] unless said; None: not asked for, and not compiled."""

    logsumexp: Any  # bits, of centred keys
    max_logit: Any  # bits, of centred keys
    argmax_key: Any
    row_mass: Any
    entropy: Any
    sum_squares: Any
    logit_sum: Any
    logit_sum_squares: Any
    mean_distance: Any
    mean_square_distance: Any
    clipped_distance: Any
    duplicate_mass: Any
    induction_mass: Any
    group_mass: Any  # [batch, head, query, GROUPS]
    value_weighted_mass: Any  # [batch, head, query, GROUPS]
    output: Any  # [batch, head, query, d_value]
    received: Any  # [program, batch, head, key], zeros: slices that the host adds up
    received_entropy: Any  # [program, batch, head, key], the same: sum p log2 p
    received_by_group: Any  # [program, batch, head, group, key], the same
    pooled_mean: Any  # [batch, head, query block, key block], zeros: summed over the real queries
    pooled_max: Any  # [batch, head, query block, key block], zeros


@triton.jit
def put(pointer, place, value, inside):
    """Store a statistic if it was asked for."""
    if pointer is not None:
        tl.store(pointer + place, value, mask=inside)


@triton.jit
def add(pointer, place, value, inside):
    """Add to a program's own slice. Other threads may store than load: turns are kept apart by a barrier."""
    tl.store(pointer + place, tl.load(pointer + place, mask=inside, other=0.0) + value, mask=inside)


@triton.jit
def carry(pointer, shrink, value):
    """A sum of weights in the units of the new peak; one that was not asked for stays a constant."""
    if pointer is None:
        return value
    else:
        return shrink * value


@triton.jit
def lowered(z, unit, by):
    """unit z - by, of a tile and its rows, in one instruction."""
    return tl.fma(z, tl.full(z.shape, unit, tl.float32), -by[:, None, None])


@triton.jit
def give_to_cells(call, out, share, largest, first_cell, start, cells, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """A tile's cells of the block maps, CELL by CELL, from each row's sum of weights and its largest weight."""
    tl.static_assert(BLOCK_K == CELL)
    COUNT: tl.constexpr = BLOCK_Q // CELL
    cell = tl.arange(0, COUNT)
    at = (first_cell + cell) * tl.cdiv(call.keys, CELL) + start // CELL
    if out.pooled_mean is not None:
        tl.store(out.pooled_mean + at, tl.sum(tl.reshape(share, [COUNT, CELL]), 1), mask=cell < cells)
    if out.pooled_max is not None:
        tl.store(out.pooled_max + at, tl.max(tl.reshape(largest, [COUNT, CELL]), 1), mask=cell < cells)


@triton.jit
def sweep(
    call,  # Call
    marks,  # Marks
    given,  # logsumexp [batch, head, query] in bits, of centred keys; None: online
    out,  # Out
    blocks,  # blocks of rows of one head, or of PACK heads together
    D: tl.constexpr,
    D_VALUE: tl.constexpr,
    BLOCK_D: tl.constexpr,  # D and D_VALUE rounded up to powers of two
    BLOCK_V: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PACK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Grid (programs, batch * head / PACK): program p takes the blocks p, p + programs, ... of rows."""
    ONLINE: tl.constexpr = given is None
    SPREAD: tl.constexpr = out.logit_sum is not None or out.logit_sum_squares is not None
    CELLS: tl.constexpr = out.pooled_mean is not None or out.pooled_max is not None
    PEAK: tl.constexpr = (
        ONLINE or SPREAD or out.max_logit is not None or out.argmax_key is not None or out.pooled_max is not None
    )
    ALL_MASKED: tl.constexpr = call.key_mask is not None
    PLAIN: tl.constexpr = call.softcap is None and call.bias is None and not ALL_MASKED
    FAR: tl.constexpr = (
        out.mean_distance is not None or out.mean_square_distance is not None or out.clipped_distance is not None
    )
    lane_q, lane_k = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    group, column = tl.arange(0, GROUPS), tl.arange(0, BLOCK_V)
    batch = (tl.program_id(1) // (call.heads // PACK)).to(tl.int64)
    first_head = (tl.program_id(1) % (call.heads // PACK)).to(tl.int64) * PACK
    kv_head = first_head // call.repeats
    keys_at = batch * call.keys
    values_at = (batch * (call.heads // call.repeats) + kv_head) * call.keys
    batches = tl.num_programs(1) // (call.heads // PACK)
    slice_at = ((tl.program_id(0).to(tl.int64) * batches + batch) * call.heads + first_head) * call.keys
    cells = tl.cdiv(call.queries, CELL)

    for turn in range(tl.program_id(0), blocks, tl.num_programs(0)):
        # rows: the longest first, so that a causal grid ends with short ones
        block = blocks - 1 - turn
        row = block * BLOCK_Q + lane_q
        query, head = row // PACK, first_head + row % PACK
        first = block * BLOCK_Q // PACK
        last = tl.minimum((block * BLOCK_Q + BLOCK_Q - 1) // PACK, call.queries - 1)
        inside = query < call.queries
        place = (batch * call.heads + head) * call.queries + query
        q = load_rows(call, batch, head, query, BLOCK_D, D)
        if not ONLINE:
            known = tl.load(given + place, mask=inside, other=-HIDDEN)  # no row: its weights are 0
            known = tl.where(known > HIDDEN, known, 0.0)  # an empty row: all its logits are HIDDEN, its weights 0
        counts, asking = tl.full([BLOCK_Q], 1.0, tl.float16), None
        if marks.real is not None:
            counts = tl.load(marks.real + batch * call.queries + query, mask=inside, other=0).to(tl.float16)
        if marks.query_group is not None:
            query_label = tl.load(marks.query_group + batch * call.queries + query, mask=inside, other=-1)
            asking = tl.where(group[:, None] == query_label[None, :], counts[None, :], 0.0)
        if marks.query_token is not None:
            token = tl.load(marks.query_token + batch * call.queries + query, mask=inside, other=-2)

        # state
        peak = tl.full([BLOCK_Q], FLOOR, tl.float32)
        best = tl.zeros([BLOCK_Q], tl.int32)
        zero = tl.zeros([BLOCK_Q, PARTS], tl.float32)
        total, entropy, squares, distance, square_distance, clipped = zero, zero, zero, zero, zero, zero
        count, logit_sum, logit_squares, duplicate, induction = zero, zero, zero, zero, zero
        masses = tl.zeros([BLOCK_Q, GROUPS], tl.float32)
        weighted = tl.zeros([BLOCK_Q, GROUPS], tl.float32)
        summed = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)

        # keys, low [edge] open_low [open] open_high [edge] high: part 0 has both edges, whose masked code is one copy
        low, high = key_range(call, first, last)
        low = low // BLOCK_K * BLOCK_K
        open_low, open_high = open_range(call, first, last, low, high, BLOCK_K)
        left = tl.cdiv(open_low - low, BLOCK_K)
        for part in tl.static_range(2):
            steps = tl.cdiv(open_high - open_low, BLOCK_K)
            if part == 0:
                steps = left + tl.cdiv(high - open_high, BLOCK_K)
            for step in range(0, steps):
                start = open_low + step * BLOCK_K
                if part == 0:
                    start = tl.where(step < left, low + step * BLOCK_K, open_high + (step - left) * BLOCK_K)
                key = start + columns(BLOCK_K)
                k = load_keys(call, batch, kv_head, start, BLOCK_K, BLOCK_D, D)
                # logits are unit * z, [row, PARTS, member]
                z = in_parts(tl.dot(q, k, input_precision=PRECISION), BLOCK_Q, BLOCK_K)
                unit = call.scale
                if part == 0 or not PLAIN:
                    unit = 1.0
                    z = in_bits(call, z, batch, head[:, None, None], query[:, None, None], key)
                if part == 0 or ALL_MASKED:
                    seen = visible(call, batch, query[:, None, None], key)
                    z = tl.where(seen, z, HIDDEN)

                # weights: 2^(z - running peak), or final
                if PEAK:
                    here = tl.max(tl.max(z, 2), 1)
                    if out.argmax_key is not None:
                        at_peak = tl.where(z == here[:, None, None], columns(BLOCK_K), BLOCK_K)
                        at_peak = start + tl.min(tl.min(at_peak, 2), 1)
                    here *= unit
                    if out.argmax_key is not None:
                        earlier = tl.where(here == peak, tl.minimum(best, at_peak), best)  # edges come first
                        best = tl.where(here > peak, at_peak, earlier)
                    higher = tl.maximum(peak, here)
                    fall = (peak - higher)[:, None]
                    peak = higher
                if ONLINE:
                    x = lowered(z, unit, peak)
                    shrink = tl.exp2(fall)
                    entropy = carry(out.entropy, shrink, entropy + fall * total)
                    total = shrink * total
                    squares = carry(out.sum_squares, shrink * shrink, squares)
                    distance = carry(out.mean_distance, shrink, distance)
                    square_distance = carry(out.mean_square_distance, shrink, square_distance)
                    clipped = carry(out.clipped_distance, shrink, clipped)
                    duplicate = carry(marks.query_token, shrink, duplicate)  # both token fields or none
                    induction = carry(marks.query_token, shrink, induction)
                else:
                    shrink = tl.full([BLOCK_Q, 1], 1.0, tl.float32)
                    x = lowered(z, unit, known)
                    if marks.real is not None:
                        x = tl.minimum(x, 0.0)  # what a logsumexp of padding may be: its weights must be numbers
                p = tl.exp2(x)

                # sums over keys
                away = tl.maximum(first + call.offset - (start + BLOCK_K - 1), start - (last + call.offset))
                share = tl.sum(p, 2)
                total += share
                if out.entropy is not None:
                    entropy += tl.sum(p * x, 2)
                if out.sum_squares is not None:
                    squares += tl.sum(p * p, 2)
                if FAR:
                    distance, square_distance, clipped = distances(
                        call, out, marks.limit, p, share, away, query, start, distance, square_distance, clipped,
                        BLOCK_K,
                    )  # fmt: skip
                if SPREAD:
                    below = lowered(z, unit, peak)
                    seen_here = zero + BLOCK_K // PARTS
                    if part == 0 or ALL_MASKED:
                        below = tl.where(seen, below, 0.0)
                        seen_here = tl.sum(seen.to(tl.float32), 2)
                    logit_sum, logit_squares = moved(fall, count, logit_sum, logit_squares)
                    count += seen_here
                    logit_sum += tl.sum(below, 2)
                    logit_squares += tl.sum(below * below, 2)
                if marks.query_token is not None:
                    duplicate, induction = paid_to_equals(
                        call, marks, batch, token, query, p, away, start, duplicate, induction, BLOCK_K, part == 0
                    )
                lane = start + lane_k
                upper, lower = halves(whole(p, BLOCK_Q, BLOCK_K))
                if marks.key_group is not None:
                    key_label = tl.load(marks.key_group + keys_at + lane, mask=lane < call.keys, other=-1)
                    one_hot = (key_label[:, None] == group[None, :]).to(tl.float16)
                    if out.group_mass is not None:
                        masses = sums_by_group(upper, lower, one_hot, masses, shrink)
                    if out.value_weighted_mass is not None:
                        value_norm = tl.load(marks.value_norm + values_at + key, mask=key < call.keys, other=0.0)
                        upper_part, lower_part = halves(whole(p * value_norm, BLOCK_Q, BLOCK_K))
                        weighted = sums_by_group(upper_part, lower_part, one_hot, weighted, shrink)
                if out.output is not None:
                    at = (values_at + lane)[:, None] * D_VALUE + column[None, :]
                    v = tl.load(
                        marks.value + at, mask=(lane < call.keys)[:, None] & (column < D_VALUE)[None, :], other=0.0
                    )
                    p_v = whole(p * UNIT, BLOCK_Q, BLOCK_K).to(v.dtype)
                    here_v = tl.dot(p_v, v, input_precision=PRECISION)
                    summed = tl.fma(summed, tl.broadcast_to(shrink, summed.shape), here_v)  # as in sums_by_group

                # sums over queries
                here_k = lane < call.keys
                if out.received is not None:
                    add(out.received, slice_at + lane, over_rows(p, counts, BLOCK_Q, BLOCK_K), here_k)
                if out.received_entropy is not None:
                    add(out.received_entropy, slice_at + lane, over_rows(p * x, counts, BLOCK_Q, BLOCK_K), here_k)
                if out.received_by_group is not None:
                    at = slice_at * marks.groups + group[:, None] * call.keys + lane[None, :]
                    some = (group < marks.groups)[:, None] & here_k[None, :]
                    add(out.received_by_group, at, by_query_group(asking, upper, lower), some)
                if CELLS:
                    largest = share
                    if out.pooled_max is not None:
                        largest = tl.where(counts > 0, tl.exp2(here - known), 0.0)
                    sums = tl.where(counts > 0, tl.sum(share, 1), 0.0)
                    first_cell = block * (BLOCK_Q // CELL)
                    at = (batch * call.heads + first_head) * cells + first_cell
                    give_to_cells(call, out, sums, largest, at, start, cells - first_cell, BLOCK_Q, BLOCK_K)

        # from sums to statistics
        total, entropy = tl.sum(total, 1), tl.sum(entropy, 1)
        norm = tl.full([BLOCK_Q], 1.0, tl.float32)
        if ONLINE:
            filled = total > 0
            above = tl.log2(tl.where(filled, total, 1.0))  # logsumexp - peak: added to a large peak its digits are lost
            if marks.sink is not None:
                sink = tl.load(marks.sink + place, mask=inside, other=0.0) - tl.where(filled, peak, 0.0)
                top = tl.maximum(above, sink)
                above = top + tl.log2(tl.exp2(above - top) + tl.exp2(sink - top))
            known = tl.where(filled, peak + above, -float("inf"))
            norm = tl.where(filled, tl.exp2(-above), 0.0)
            entropy -= above * total
        put(out.logsumexp, place, known, inside)
        put(out.max_logit, place, tl.where(peak > FLOOR, peak, -float("inf")), inside)
        put(out.argmax_key, place, best, inside)
        put(out.row_mass, place, norm * total, inside)
        put(out.entropy, place, -norm * entropy * LN2, inside)
        put(out.sum_squares, place, norm * norm * tl.sum(squares, 1), inside)
        put(out.logit_sum, place, tl.sum(logit_sum, 1) * LN2, inside)
        put(out.logit_sum_squares, place, tl.sum(logit_squares, 1) * (LN2 * LN2), inside)
        put(out.mean_distance, place, norm * tl.sum(distance, 1), inside)
        put(out.mean_square_distance, place, norm * tl.sum(square_distance, 1), inside)
        put(out.clipped_distance, place, norm * tl.sum(clipped, 1), inside)
        put(out.duplicate_mass, place, norm * tl.sum(duplicate, 1), inside)
        put(out.induction_mass, place, norm * tl.sum(induction, 1), inside)
        norm = (norm / UNIT)[:, None]
        at = place[:, None] * GROUPS + group[None, :]
        put(out.group_mass, at, norm * masses, inside[:, None])
        put(out.value_weighted_mass, at, norm * weighted, inside[:, None])
        at = place[:, None] * D_VALUE + column[None, :]
        put(out.output, at, norm * summed, inside[:, None] & (column < D_VALUE)[None, :])
        tl.debug_barrier()  # the next turn adds to the slice that this one wrote
