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
HALF = (torch.float16, torch.bfloat16)


def sdpa_suffices(inputs: AttentionInputs) -> bool:
    """Whether stock SDPA computes this call without an n x n tensor."""
    view = inputs.visibility
    _, _, queries, keys = inputs.shape
    plain = inputs.softcap is None and inputs.sink_logits is None and inputs.bias is None and view.rule is None
    square = inputs.value is None or inputs.value.shape[-1] == inputs.query.shape[-1]
    unbounded = view.before is None or view.before >= queries - 1 + view.offset
    everything = view.after is None or view.offset + view.after >= keys - 1
    return plain and square and unbounded and (everything or (_causal(inputs) and view.key_mask is None))


def _causal(inputs: AttentionInputs) -> bool:
    """Whether this is what SDPA calls causal; a single query sees everything."""
    view, (_, _, queries, keys) = inputs.visibility, inputs.shape
    return view.after == 0 and view.offset == 0 and queries == keys and queries > 1


def attention_output(inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
    """(sum_j p_ij v_j [batch, head, query, d_head], logsumexp [batch, head, query] in nats where it came for free).

    By SDPA where it needs no n x n tensor, else block by block.
    """
    if not sdpa_suffices(inputs):
        return attention_stats(inputs, frozenset({"output"}))["output"], None
    if backend(inputs.query.device) == "triton" and inputs.visibility.key_mask is None:
        found = with_logsumexp(inputs)
        if found is not None:
            return found
    key, value = inputs.key, inputs.value
    assert value is not None
    mask = None if inputs.visibility.key_mask is None else inputs.visibility.key_mask[:, None, None, :]
    if key.is_cuda and (mask is not None or key.dtype not in HALF):  # grouped queries would take the n x n path there
        key, value = _repeated(inputs)
    output = torch.nn.functional.scaled_dot_product_attention(
        inputs.query, key, value, attn_mask=mask, is_causal=_causal(inputs), scale=inputs.scale,
        enable_gqa=key.shape[1] != inputs.shape[1],
    )  # fmt: skip
    return output, None


def with_logsumexp(inputs: AttentionInputs) -> tuple[Tensor, Tensor] | None:
    """(output, logsumexp) by the flash operator of this device; None where it would not take the call."""
    if inputs.value is None or inputs.value.shape[-1] != inputs.query.shape[-1] or not _flash_takes(inputs.query):
        return None
    operators = {
        "cpu": torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
        "cuda": torch.ops.aten._scaled_dot_product_flash_attention,
    }
    operator = operators[inputs.query.device.type]
    # the operator of the CPU wants a key for every query head
    shared = (inputs.key, inputs.value) if inputs.key.is_cuda else _repeated(inputs)
    output, logsumexp = operator(inputs.query, *shared, 0.0, _causal(inputs), scale=inputs.scale)[:2]
    logsumexp = logsumexp[..., : inputs.shape[2]]
    return (output, logsumexp) if agrees(inputs, logsumexp) else None


def _flash_takes(query: Tensor) -> bool:
    """What the operator checks itself, with an error: it does not pad, as SDPA would for it."""
    if query.device.type != "cuda":
        return query.device.type == "cpu"
    width = query.shape[-1]
    able = torch.cuda.get_device_capability(query.device) >= (8, 0)
    return able and query.dtype in HALF and width % 8 == 0 and width <= 256 and query.stride(-1) == 1


def _repeated(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """Keys and values, one of each for every query head."""
    assert inputs.value is not None
    if inputs.repeats == 1:
        return inputs.key, inputs.value
    return inputs.key.repeat_interleave(inputs.repeats, 1), inputs.value.repeat_interleave(inputs.repeats, 1)


def agrees(inputs: AttentionInputs, logsumexp: Tensor) -> bool:
    """Whether the last query, which sees every key, has the logsumexp of its logits."""
    if logsumexp.shape != inputs.shape[:3]:
        return False
    last = inputs.query[:, :, -1:].float().unflatten(1, (-1, inputs.repeats))
    logits = inputs.scale * last @ inputs.key.float()[:, :, None].mT
    expected = logits.logsumexp(-1).flatten(1, 2).squeeze(-1)
    return bool(((logsumexp[..., -1].float() - expected).abs() <= TOLERANCE).all())
