"""What every Triton kernel of this room begins with: a block of rows, a block of keys, and their masked logits.

A *row* is one (query, head) pair. PACK heads that share a kv head may be laid into one block, query-major: row t is
query t // PACK of head t % PACK, so a block of keys is loaded once for all of them. Logits are kept in bits,
z log2(e), so that exp2 gives weights. Offsets into a whole tensor are int64 scalars, offsets inside a block int32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
"""Bits of a nat."""
LN2 = tl.constexpr(0.6931471805599453)
"""Nats of a bit."""
HIDDEN = tl.constexpr(-1e30)
"""The logit of a hidden key: finite, so that weight * logit is 0 and not NaN."""
FLOOR = tl.constexpr(-1e29)
"""The peak of a row that has seen no key: finite, and so far above HIDDEN that its weights are 0."""


class Call(NamedTuple):
    """One attention call on the device. What a call does not have is None, and its code is not compiled."""

    query: Any  # [batch, head, query, d_head]
    key: Any  # [batch, kv_head, key, d_head]; centred in float32
    query_strides: tuple[int, ...]  # of batch, head, query; d_head is dense
    key_strides: tuple[int, ...]
    heads: int
    repeats: int  # query heads per kv head
    queries: int
    keys: int
    before: int  # key j is visible iff -after <= (i + offset) - j <= before
    after: int
    offset: int
    scale: float  # to bits: scale * log2(e); plain under a cap
    softcap: Any
    bias: Any  # [batch, head, query, key], strides 0 where it repeats
    bias_strides: tuple[int, ...]
    key_mask: Any  # int8 [batch, key]


@triton.jit
def load_rows(call, batch, head, query, BLOCK_D: tl.constexpr, D: tl.constexpr):
    """Queries of some rows, [row, d_head]; rows beyond the last query are 0."""
    width = tl.arange(0, BLOCK_D)
    start = batch * call.query_strides[0] + head * call.query_strides[1] + query.to(tl.int64) * call.query_strides[2]
    inside = (query < call.queries)[:, None] & (width < D)[None, :]
    return tl.load(call.query + start[:, None] + width[None, :], mask=inside, other=0.0)


@triton.jit
def load_keys(call, batch, kv_head, start, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, D: tl.constexpr):
    """Keys start, start + 1, ... turned round, [d_head, key]; keys beyond the last are 0."""
    width, lane = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_K)
    strides = call.key_strides
    first = call.key + batch * strides[0] + kv_head * strides[1] + tl.cast(start, tl.int64) * strides[2]
    inside = (width < D)[:, None] & (start + lane < call.keys)[None, :]
    return tl.load(first + width[:, None] + (lane * strides[2])[None, :], mask=inside, other=0.0)


@triton.jit
def visible(call, batch, query, key):
    """bool, as `query` and `key` broadcast: the rule of `Visibility`, its band and its key mask."""
    gap = (query + call.offset) - key
    seen = (gap <= call.before) & (gap >= -call.after) & (key < call.keys)
    if call.key_mask is not None:
        seen = seen & (tl.load(call.key_mask + batch * call.keys + key, mask=key < call.keys, other=0) != 0)
    return seen


@triton.jit
def in_bits(call, products, batch, head, query, key):
    """z in bits of the products q.k, before anything is hidden; `head`, `query` and `key` broadcast to its shape."""
    z = products * call.scale
    if call.softcap is not None:
        # tanh(x) = 1 - 2 / (1 + e^2x)
        z = (1.0 - 2.0 / (1.0 + tl.exp2(z * (2 * LOG2E / call.softcap)))) * (call.softcap * LOG2E)
    if call.bias is not None:
        strides = call.bias_strides
        start = batch * strides[0] + head * strides[1] + query.to(tl.int64) * strides[2]
        inside = (query < call.queries) & (key < call.keys)
        z += tl.load(call.bias + start + key * strides[3], mask=inside, other=0.0) * LOG2E
        z = tl.maximum(z, HIDDEN)  # a bias of -inf: 0 times it is 0
    return z


@triton.jit
def key_range(call, first, last):
    """The smallest range of keys that holds all that queries first..last can see."""
    low = tl.maximum(first + call.offset - call.before, 0)
    high = tl.minimum(last + call.offset + call.after + 1, call.keys)
    return low, tl.maximum(high, 0)


@triton.jit
def open_range(call, first, last, low, high, BLOCK_K: tl.constexpr):
    """The whole blocks of keys inside low..high that the band shows to every query first..last: (high, high) if none.

    `low` is a multiple of BLOCK_K.
    """
    start = tl.maximum(low, tl.cdiv(last + call.offset - call.before, BLOCK_K) * BLOCK_K)
    stop = tl.maximum(tl.minimum(high, first + call.offset + call.after + 1), 0) // BLOCK_K * BLOCK_K
    none = start >= stop
    return tl.where(none, high, start), tl.where(none, high, stop)
