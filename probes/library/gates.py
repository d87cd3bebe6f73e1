"""DuoAttention's question by a swap: what is lost where one KV head keeps only sinks and recent tokens.

The paper trains a gate for each KV head on the squared difference of the last hidden states; swapping one head at a
time asks for the same loss without training, a forward for each KV head. Source: Xiao et al., "DuoAttention",
section 2.3. `headatlas gates` trains the gates themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...data.tokens import TokenBatch
from ...kernels.stats import Call
from ..edits.edit import Edit
from ..experiment import experiment

if TYPE_CHECKING:
    from ..models import Model

CACHES = ((4, 16), (64, 256))
"""(sinks, recent tokens); the second is what DuoAttention deploys."""


def kv_heads(model: Model) -> list[tuple[Call, int]]:
    """Every KV head of the text tower's causal layers, by call and number."""
    calls = [call for call in model.text_calls.values() if call.causal]
    return [(call, head) for call in calls for head in range(call.kv_heads)]


def last_hidden(model: Model, batch: TokenBatch, edits: list[Edit]) -> Tensor:
    """The last hidden states [batch, token, d_model], after the final norm, with some edits in force."""
    from ..forward import edited

    return edited(model, batch, edits, network=model.network.base_model).last_hidden_state.float()


@experiment(
    title="Streaming swap loss",
    formula="mean over answering queries of ||h - h'||^2 / d; h' with one KV head on s sinks and r recent keys",
    unit="squared activation",
    bounds=(0, None),
    higher="the answer hangs on what this KV head reads far back: it needs a full cache",
    caveat="one head at a time: heads that stand in for each other all score low; query heads of one KV head share it",
    source="Xiao et al., DuoAttention, section 2.3 (distillation loss), by single swaps in place of trained gates",
    parts=tuple(f"{sinks}+{recent}" for sinks, recent in CACHES),
    groups=("answer",),
    default_data="needle",
    causal_only=True,
    shortest=sum(CACHES[0]) + 1,
    forwards=lambda model: 1 + len(CACHES) * len(kv_heads(model)),
    why_forwards="one for each KV head and cache that leaves something out",
)
def streaming_swap(model: Model, batch: TokenBatch) -> Iterator[tuple[Call, Tensor]]:
    """Loss of the last hidden states at the answer where one KV head attends to sinks and recent tokens alone.

    >>> streaming_swap.parts
    ('4+16', '64+256')
    """
    rows = batch.answering().to(model.device)
    plain = last_hidden(model, batch, [])
    assert batch.lengths is not None
    lengths = batch.lengths.to(model.device)
    losses: dict[int, list[Tensor]] = {}
    for call, head in kv_heads(model):
        group = call.heads // call.kv_heads
        names = [f"L{call.layer}H{head * group + index}" for index in range(group)]
        parts = []
        for sinks, recent in CACHES:
            fits = lengths <= sinks + recent
            if bool(fits.all()):
                parts.append(plain.new_full((len(batch),), torch.nan))
                continue
            swapped = last_hidden(model, batch, [Edit("mask", names, sinks=sinks, recent=recent)])
            loss = ((plain - swapped) ** 2).mean(-1)
            parts.append((loss * rows).sum(1).div(rows.sum(1)).masked_fill(fits, torch.nan))
        losses.setdefault(call.layer, []).append(torch.stack(parts, dim=-1))
        if head == call.kv_heads - 1:
            yield call, torch.stack(losses.pop(call.layer), dim=1).repeat_interleave(group, dim=1)
