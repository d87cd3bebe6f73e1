"""The attention output by torch's own SDPA, and the logsumexp it finds on the way.

Where Triton computes the statistics, that logsumexp saves it a sweep (the fused form). It is taken on trust from an
internal operator of torch, so one row of it is recomputed, O(n d), and it is used only if that agrees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import attention_stats, backend
from .inputs import AttentionInputs

TOLERANCE = 2e-2
"""Nats by which the checked row may differ: bfloat16 inputs are exact here, a wrong layout is off by far more."""


def sdpa_suffices(inputs: AttentionInputs) -> bool:
    """Whether stock SDPA computes this call without an n x n mask."""
    view = inputs.visibility
    plain = inputs.softcap is None and inputs.sink_logits is None and inputs.bias is None and view.rule is None
    _, _, queries, keys = inputs.shape
    unbounded = view.before is None or view.before >= keys + abs(view.offset)
    causal = view.after == 0 and view.offset == 0 and queries == keys and view.key_mask is None
    everything = view.after is None or (view.after == 0 and view.offset >= keys - 1)
    return plain and unbounded and (causal or everything)


def attention_output(inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
    """(sum_j p_ij v_j [batch, head, query, d_head], logsumexp [batch, head, query] in nats where it came for free).

    By SDPA where it needs no mask tensor, else block by block.
    """
    if not sdpa_suffices(inputs):
        return attention_stats(inputs, frozenset({"output"}))["output"], None
    if backend(inputs.query.device) == "triton" and inputs.visibility.key_mask is None:
        found = with_logsumexp(inputs)
        if found is not None:
            return found
    view, value = inputs.visibility, inputs.value
    assert value is not None
    mask = None if view.key_mask is None else view.key_mask[:, None, None, :]
    output = torch.nn.functional.scaled_dot_product_attention(
        inputs.query, inputs.key, value, attn_mask=mask, is_causal=_causal(inputs), scale=inputs.scale,
        enable_gqa=inputs.repeats > 1,
    )  # fmt: skip
    return output, None


def with_logsumexp(inputs: AttentionInputs) -> tuple[Tensor, Tensor] | None:
    """(output, logsumexp) by the flash operator of this device; None where it has none that takes the call."""
    device, dtype = inputs.query.device.type, inputs.query.dtype
    operators = {
        "cpu": torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
        "cuda": torch.ops.aten._scaled_dot_product_flash_attention,
    }
    half = dtype in (torch.float16, torch.bfloat16)
    if device not in operators or (device == "cuda" and not half) or inputs.value is None:
        return None
    if inputs.value.shape[-1] != inputs.query.shape[-1]:
        return None
    key, value = (tensor.repeat_interleave(inputs.repeats, 1) for tensor in (inputs.key, inputs.value))
    output, logsumexp = operators[device](
        inputs.query, key, value, 0.0, _causal(inputs), scale=inputs.scale
    )[:2]  # fmt: skip
    logsumexp = logsumexp[..., : inputs.shape[2]]
    return (output, logsumexp) if _agrees(inputs, logsumexp) else None


def _causal(inputs: AttentionInputs) -> bool:
    return inputs.visibility.after == 0 and inputs.shape[2] > 1


def _agrees(inputs: AttentionInputs, logsumexp: Tensor) -> bool:
    """Whether the last query, which sees every key, has the logsumexp of its logits."""
    last = inputs.query[:, :, -1:].float().unflatten(1, (-1, inputs.repeats))
    logits = inputs.scale * last @ inputs.key.float()[:, :, None].mT
    expected = logits.logsumexp(-1).flatten(1, 2).squeeze(-1)
    if logsumexp.shape != inputs.shape[:3]:
        return False
    return bool(((logsumexp[..., -1].float() - expected).abs() <= TOLERANCE).all())
