"""Block maps of left-padded calls: blocks are counted from the first real token, wherever padding is.

Kernels cut the map at multiples of 64 positions. Where padding stands in front, each example is turned round so that it
stands at the end: the same pairs meet, the same distances apart, and the first block begins with the first token. A
sweep of its own, which only left-padded calls pay for. Queries and keys must be the same tokens; elsewhere (a cache,
cross-attention) positions are what blocks are counted by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .inputs import AttentionInputs, Rule, Visibility

BLOCK_MAPS = frozenset({"pooled_mean", "pooled_max"})
Stats = dict[str, Tensor]


def with_aligned_maps(
    compute: Callable[[AttentionInputs, frozenset[str], Tensor | None], Stats],
    inputs: AttentionInputs,
    needs: frozenset[str],
    logsumexp: Tensor | None = None,
) -> Stats:
    """`compute(inputs, needs, logsumexp)`, block maps from the aligned call where the call itself is not."""
    lead = leading_padding(inputs) if needs & BLOCK_MAPS else None
    if lead is None:
        return compute(inputs, needs, logsumexp)
    known = None if logsumexp is None else logsumexp.gather(2, _order(lead, inputs)[:, None].expand(logsumexp.shape))
    maps = compute(aligned(inputs, lead), needs & BLOCK_MAPS, known)
    return {name: maps[name] for name in needs & BLOCK_MAPS} | compute(inputs, needs - BLOCK_MAPS, logsumexp)


def leading_padding(inputs: AttentionInputs) -> Tensor | None:
    """int64 [batch], positions before the first real token; None where every example begins with one."""
    view, (_, _, queries, keys) = inputs.visibility, inputs.shape
    if view.key_mask is None or view.query_mask is None or queries != keys or view.offset != 0:
        return None
    before = [(mask.long().cumsum(1) == 0).sum(1) % keys for mask in (view.key_mask, view.query_mask)]
    return before[0] if bool(before[0].any()) and torch.equal(*before) else None


def aligned(inputs: AttentionInputs, lead: Tensor) -> AttentionInputs:
    """The call with each example's first `lead` positions moved to its end: what block maps need of it, no labels."""
    order = _order(lead, inputs)
    bias = inputs.bias
    if bias is not None:
        bias = bias.expand(lead.shape[0], -1, -1, -1)
        rows = order[:, None, :, None].expand(bias.shape)
        bias = bias.gather(2, rows).gather(3, rows.mT)
    view = inputs.visibility
    turned = Visibility(
        before=view.before,
        after=view.after,
        key_mask=view.key_mask.gather(1, order),  # type: ignore[union-attr]
        query_mask=view.query_mask.gather(1, order),  # type: ignore[union-attr]
        rule=None if view.rule is None else _turned(view.rule, order),
    )
    return AttentionInputs(
        query=_moved(inputs.query, order), key=_moved(inputs.key, order), scale=inputs.scale, visibility=turned,
        softcap=inputs.softcap, sink_logits=inputs.sink_logits, bias=bias,
    )  # fmt: skip


def _order(lead: Tensor, inputs: AttentionInputs) -> Tensor:
    """int64 [batch, position]: where what stands here came from."""
    size = inputs.shape[3]
    return (torch.arange(size, device=lead.device) + lead[:, None]) % size


def _moved(tensor: Tensor, order: Tensor) -> Tensor:
    """tensor [batch, head, position, d] in the new order."""
    return tensor.gather(2, order[:, None, :, None].expand(tensor.shape))


def _turned(rule: Rule, order: Tensor) -> Rule:
    """The rule, asked about the places that positions came from."""
    return lambda batch, query, key: rule(batch, order[batch, query], order[batch, key])
