"""A tile of logits or weights, and what it is summed to, written so that few instructions are issued for a pair.

A thread of a tensor core holds two rows of a tile, and of each row every fourth pair of keys. So a tile is held as
[row, PARTS, member], a part for each of the four threads that share a row: sums over members move no data between
threads, a product and its sum are one instruction, and the four parts of a sum are put together once, after the loop.
Sums by group go through the tensor cores.
"""

from __future__ import annotations

import triton
import triton.language as tl

PARTS = tl.constexpr(4)
"""Threads of a tensor core that share a row."""
GROUPS = tl.constexpr(16)
"""Columns of the one-hot matrix of labels; the least a tensor core takes."""
UNIT = tl.constexpr(16384.0)
"""A weight of 1 as `halves` has it: near the largest half-precision number, so that small weights keep their digits."""


@triton.jit
def in_parts(tile, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """[row, key] as [row, PARTS, member]."""
    by_thread = tl.permute(tl.reshape(tile, [BLOCK_Q, BLOCK_K // 8, PARTS, 2]), [0, 2, 1, 3])
    return tl.reshape(by_thread, [BLOCK_Q, PARTS, BLOCK_K // PARTS])


@triton.jit
def whole(tile, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """[row, PARTS, member] as [row, key]."""
    by_thread = tl.permute(tl.reshape(tile, [BLOCK_Q, PARTS, BLOCK_K // 8, 2]), [0, 2, 1, 3])
    return tl.reshape(by_thread, [BLOCK_Q, BLOCK_K])


@triton.jit
def columns(BLOCK_K: tl.constexpr):
    """The column of the block that each member of each part is, int32 [1, PARTS, member]."""
    part, member = tl.arange(0, PARTS), tl.arange(0, BLOCK_K // PARTS)
    return (2 * part[:, None] + (8 * (member // 2) + member % 2)[None, :])[None, :, :]


@triton.jit
def halves(p):
    """UNIT p, below 4 UNIT, as a sum of two half-precision numbers, to 2^-23 of itself and 2^-39 of 1."""
    large = p * UNIT
    upper = large.to(tl.float16)
    return upper, (large - upper.to(tl.float32)).to(tl.float16)


@triton.jit
def sums_by_group(upper, lower, one_hot, so_far, shrink):
    """shrink so_far + UNIT p @ one_hot, [row, GROUPS], from the halves of p; `one_hot` [key, GROUPS], half precision.

    Tensor cores cut off what they add up: over all keys that would come to 1e-4, so they add up one block alone.
    """
    return tl.fma(so_far, tl.broadcast_to(shrink, so_far.shape), tl.dot(lower, one_hot, tl.dot(upper, one_hot)))


@triton.jit
def by_query_group(asking, upper, lower):
    """asking @ p, [GROUPS, key], from the halves of p; `asking` [GROUPS, row] in half precision."""
    return tl.dot(asking, lower, tl.dot(asking, upper)) * (1 / UNIT)


@triton.jit
def over_rows(p, counts, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr):
    """sum of p over the rows that count, [key], to 2^-20 of itself: pairs in a thread, then products with 1.

    A tensor core takes 10 bits of a float32, so each sum of a pair is given as its upper bits and what is left.
    """
    p = whole(tl.where(counts[:, None, None] > 0, p, 0.0), BLOCK_Q, BLOCK_K)
    pairs = tl.reshape(tl.sum(tl.reshape(p, [BLOCK_Q // 16, 2, 8, BLOCK_K]), 1), [BLOCK_Q // 2, BLOCK_K])
    upper = (pairs.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    ones = tl.full([GROUPS, BLOCK_Q // 2], 1.0 / GROUPS, tl.float32)
    found = tl.dot(ones, upper, input_precision="tf32")
    return tl.sum(tl.dot(ones, pairs - upper, found, input_precision="tf32"), 0)


@triton.jit
def distances(
    call, out, limit, p, share, away, query, start, mean, square, clipped, BLOCK_K: tl.constexpr
):  # fmt: skip
    """The sums of p times |i - j|, its square, and the least of it and `limit`, with the block of keys at `start`.

    Keys on one side of all rows, BLOCK_K and `limit` away: with i - j = b - c, b a row's and c a key's,

        sum p |i - j| = |b sum p - sum p c|        sum p (i - j)^2 = b (b sum p - 2 sum p c) + sum p c^2

    where c are the same few constants in every block. Near keys take each distance as it is: there b^2 would cancel.
    `share` is sum p, [row, PARTS]; `away` the least distance of a row and a key, 0 or less if keys are on both sides.
    """
    reach = tl.cast(BLOCK_K, tl.float32)
    if out.clipped_distance is not None:
        reach = tl.maximum(reach, limit)
    part, member = tl.arange(0, PARTS), tl.arange(0, BLOCK_K // PARTS)
    column = (8 * (member // 2) + member % 2).to(tl.float32)
    row = ((query + call.offset - start)[:, None] - 2 * part[None, :]).to(tl.float32)
    if away < reach:
        apart = tl.abs(row[:, :, None] - column[None, None, :])
        far = p * apart
        if out.mean_distance is not None:
            mean += tl.sum(far, 2)
        if out.mean_square_distance is not None:
            square += tl.sum(far * apart, 2)
        if out.clipped_distance is not None:
            clipped += tl.sum(p * tl.minimum(apart, limit), 2)
    else:
        middle = BLOCK_K / 2 - 3.5
        b, c = row - middle, (column - middle)[None, None, :]
        first_moment = tl.sum(p * c, 2)
        if out.mean_distance is not None:
            mean += tl.abs(b * share - first_moment)
        if out.mean_square_distance is not None:
            square += b * (b * share - 2 * first_moment) + tl.sum(p * (c * c), 2)
        if out.clipped_distance is not None:
            clipped += limit * share
    return mean, square, clipped


@triton.jit
def moved(fall, count, first, second):
    """sum (z - peak) and its squares over `count` keys when all z fall by `fall` below a new peak: no large sum arises.

    The first fall is from FLOOR, whose square is inf, and 0 keys times that must be 0.
    """
    fall = tl.maximum(fall, -1e15)
    return first + count * fall, second + 2 * fall * first + count * fall * fall


@triton.jit
def paid_to_equals(
    call, marks, batch, token, query, p, away, start, duplicate, induction, BLOCK_K: tl.constexpr, EDGE: tl.constexpr
):  # fmt: skip
    """The sums of p over keys j where j, or j - 1, is another position that holds the query's token."""
    column = columns(BLOCK_K)
    at = batch * call.keys + start
    itself = tokens_from(marks.key_token + at, column, call.keys - start, EDGE)
    behind = tokens_from(marks.token_before + at, column, call.keys - start, EDGE)
    to_itself = tl.where(token[:, None, None] == itself, p, 0.0)
    to_behind = tl.where(token[:, None, None] == behind, p, 0.0)
    duplicate += tl.sum(to_itself, 2)
    induction += tl.sum(to_behind, 2)
    if away < 2:  # the query's own token is no other position
        own = (query + call.offset - start)[:, None, None]
        duplicate -= tl.sum(tl.where(column == own, to_itself, 0.0), 2)
        induction -= tl.sum(tl.where(column == own + 1, to_behind, 0.0), 2)
    return duplicate, induction


@triton.jit
def tokens_from(pointer, column, left, EDGE: tl.constexpr):
    """Tokens of a block of keys, of which `left` are there; whole blocks need no mask."""
    if EDGE:
        return tl.load(pointer + column, mask=column < left, other=-1)
    else:
        return tl.load(pointer + column)
