"""How many keys a query sees that hold its token, in Triton: a count that all heads share, with no logit in it.

Cost per pair of a query and a key it may see, once for all heads: some 12 lane operations.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_scores import key_range, visible


@triton.jit
def equal_keys(
    call,
    marks,
    duplicates,  # int32 [batch, query]: keys j that are another position with the query's token
    inductions,  # int32 [batch, query]: keys j where j - 1 is
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Grid (row blocks, batch)."""
    batch = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * BLOCK_Q
    query = first + tl.arange(0, BLOCK_Q)
    inside = query < call.queries
    token = tl.load(marks.query_token + batch * call.queries + query, mask=inside, other=-2)
    same = tl.zeros([BLOCK_Q], tl.int32)
    after_same = tl.zeros([BLOCK_Q], tl.int32)
    low, high = key_range(call, first, tl.minimum(first + BLOCK_Q, call.queries) - 1)
    for start in range(low, high, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        here = key < high
        itself = tl.load(marks.key_token + batch * call.keys + key, mask=here, other=-1)
        behind = tl.load(marks.token_before + batch * call.keys + key, mask=here, other=-1)
        seen = visible(call, batch, query[:, None], key[None, :])
        gap = (query + call.offset)[:, None] - key[None, :]
        same += tl.sum((seen & (gap != 0) & (token[:, None] == itself[None, :])).to(tl.int32), 1)
        after_same += tl.sum((seen & (gap != -1) & (token[:, None] == behind[None, :])).to(tl.int32), 1)
    tl.store(duplicates + batch * call.queries + query, same, mask=inside)
    tl.store(inductions + batch * call.queries + query, after_same, mask=inside)
