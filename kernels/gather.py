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
    logits = inputs.capped(inputs.scale * torch.einsum("bkrqd,bkqtd->bkrqt", query, key).flatten(1, 2))
    if inputs.bias is not None:
        bias = inputs.bias.expand(batch, heads, -1, -1)
        logits = logits + bias.gather(-1, kept[:, None].expand(-1, heads, -1, -1))
    place = [torch.arange(size, device=targets.device) for size in (batch, queries)]
    seen = inputs.visibility.shows(place[0][:, None, None], place[1][:, None], targets)[:, None]
    filled = (logsumexp > -torch.inf)[..., None]
    return torch.where(seen & filled, torch.exp(logits - logsumexp[..., None]), 0.0)
