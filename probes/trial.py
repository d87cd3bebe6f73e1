"""The attention call on which every probe is tried: random, causal, over a text said twice, with every label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..data.groups import SLOTS
from ..kernels.inputs import AttentionInputs, Visibility
from ..kernels.stats import AttentionStats, Call
from ..kernels.streaming import streaming_stats
from .observer import NO_TOKEN, mean_tails
from .probe import Probe, Reading
from .residual import residual_stats
from .targets import targets_of

NAMES = ("rest", "bos", "repeat", "needle", "user", "system", "assistant", "template", "answer", "image", "separator",
         "distractor", "subject", "other", *SLOTS)  # fmt: skip
LENGTH = 90
"""Tokens of an example: more than the 64 that sink_rate asks for."""


def example_inputs(
    *, batch: int = 3, heads: int = 4, kv_heads: int = 2, length: int = LENGTH, seed: int = 0
) -> AttentionInputs:
    """Random causal attention over a text said twice, every label present."""
    random = torch.Generator().manual_seed(seed)
    half = torch.randperm(length, generator=random)[: -(-length // 2)]
    tokens = torch.cat([half, half])[:length].expand(batch, -1)
    labels = torch.arange(length) % len(NAMES)
    labels = torch.where(torch.arange(length) >= length // 2, labels, labels.flip(0)).to(torch.int8).expand(batch, -1)
    shape = {"query": (heads, length, 8), "key": (kv_heads, length, 8), "value": (kv_heads, length, 8)}
    made: dict[str, Any] = {name: torch.randn(batch, *size, generator=random) for name, size in shape.items()}
    return AttentionInputs(
        **made, scale=1.5, visibility=Visibility(after=0), key_groups=labels, query_groups=labels,
        group_count=len(NAMES), query_tokens=tokens, key_tokens=tokens,
    )  # fmt: skip


def trial_inputs(one: Probe, **changes: Any) -> AttentionInputs:
    """The call that the probe is tried on: long enough that it is defined."""
    return example_inputs(**{"length": max(LENGTH, one.shortest)} | changes)


def stats_for(one: Probe, inputs: AttentionInputs) -> AttentionStats:
    """Exactly the statistics that the probe declares, for one call; its queries, side by side, are its stream."""
    if one.of_layers:
        return _stream_for(one, inputs)
    inputs = replace(inputs, targets=targets_of(one.needs, inputs.real_queries()))
    call = Call(heads=inputs.shape[1], kv_heads=inputs.key.shape[1])
    values, tokens = streaming_stats(inputs, one.needs), inputs.key_tokens
    labels = (inputs.query_groups, inputs.key_groups, tokens, None if tokens is None else tokens % 5 == 0)
    return AttentionStats(values, call, NAMES, inputs.visibility.query_mask, *labels, mean_tails(values))


def _stream_for(one: Probe, inputs: AttentionInputs) -> AttentionStats:
    real, labels = inputs.visibility.query_mask, inputs.query_groups
    hidden = inputs.query.transpose(1, 2).flatten(2)
    return AttentionStats(residual_stats(hidden, one.needs), Call(), NAMES, real, labels, labels)


def read(one: Probe, inputs: AttentionInputs) -> Reading:
    """The probe's reading of one call."""
    return one.measure(stats_for(one, inputs))


def picked(inputs: AttentionInputs, index: int) -> AttentionInputs:
    """One example of the call, alone."""
    names = ("query", "key", "value", "key_groups", "query_groups", "query_tokens", "key_tokens")
    return replace(inputs, **{name: getattr(inputs, name)[index : index + 1] for name in names})


def padded_call(inputs: AttentionInputs, count: int, *, left: bool) -> AttentionInputs:
    """The call with `count` positions of rubbish beside the real ones."""
    sides = (count, 0) if left else (0, count)
    grown = {
        name: torch.nn.functional.pad(getattr(inputs, name), (0, 0, *sides), value=3.0)
        for name in ("query", "key", "value")
    }
    flat = {
        name: torch.nn.functional.pad(getattr(inputs, name), sides, value=1) for name in ("key_groups", "query_groups")
    }
    flat |= {
        name: torch.nn.functional.pad(getattr(inputs, name), sides, value=NO_TOKEN)
        for name in ("query_tokens", "key_tokens")
    }
    real = torch.nn.functional.pad(torch.ones(inputs.shape[0], inputs.shape[2], dtype=torch.bool), sides)
    view = Visibility(after=0, query_mask=real, key_mask=real if left else None)
    return replace(inputs, **grown, **flat, visibility=view)
