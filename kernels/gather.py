"""The attention weight at given keys, O(n d): no softmax is formed, the logsumexp of each row is known.

p_i,t(i) = exp(z_i,t(i) - logsumexp_i). FLOPs 2 d per (query, target); one exponential.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .inputs import AttentionInputs


def gather_weights(inputs: AttentionInputs, logsumexp: Tensor, targets: Tensor) -> Tensor:
    """Weights [batch, head, query, target] at key indices `targets` [batch, query, target]; 0 where negative or hidden.

    `logsumexp` [batch, head, query] is that of the same call (a sink logit included).
    """
    batch, heads, queries, _ = inputs.shape
    count = targets.shape[-1]
    kept = targets.clamp(min=0)
    index = kept.flatten(1)[:, None, :, None].expand(-1, inputs.key.shape[1], -1, inputs.key.shape[-1])
    key = inputs.key.gather(2, index).unflatten(2, (queries, count)).to(logsumexp.dtype)
    query = inputs.query.to(logsumexp.dtype).unflatten(1, (-1, inputs.repeats))
    logits = inputs.scale * torch.einsum("bkrqd,bkqtd->bkrqt", query, key).flatten(1, 2)
    if inputs.softcap is not None:
        logits = inputs.softcap * torch.tanh(logits / inputs.softcap)
    if inputs.bias is not None:
        bias = inputs.bias.expand(batch, heads, -1, -1)
        logits = logits + bias.gather(-1, kept[:, None].expand(-1, heads, -1, -1))
    weights = torch.exp(logits - logsumexp[..., None])
    return torch.where(_seen(inputs, targets)[:, None], weights, 0.0)


def _seen(inputs: AttentionInputs, targets: Tensor) -> Tensor:
    """bool [batch, query, target]: the target exists and the query may see it."""
    view = inputs.visibility
    batch, queries, _ = targets.shape
    position = torch.arange(queries, device=targets.device)[None, :, None]
    offset = position + view.offset - targets
    seen = targets >= 0
    if view.before is not None:
        seen = seen & (offset <= view.before)
    if view.after is not None:
        seen = seen & (offset >= -view.after)
    if view.key_mask is not None:
        seen = seen & view.key_mask.gather(1, targets.clamp(min=0).flatten(1)).view_as(targets)
    if view.rule is not None:
        rows = torch.arange(batch, device=targets.device)[:, None, None]
        seen = seen & view.rule(rows, position, targets.clamp(min=0))
    return seen
