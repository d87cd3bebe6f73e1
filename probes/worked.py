"""Attention statistics from weights written by hand: for worked examples, tests of probes, and maps from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.inputs import AttentionInputs, Visibility
from ..kernels.reference import statistics_of_weights
from ..kernels.stats import AttentionStats, Call
from .targets import targets_of


def stats_of(
    weights: Tensor | Sequence[Any],
    needs: Iterable[str],
    *,
    tokens: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    values: Tensor | Sequence[Any] | None = None,
    call: Call | None = None,
) -> AttentionStats:
    """Statistics of given causal weights [query, key] (or [batch, head, query, key]), rows summing to 1.

    Logits are the logarithms of the weights; `tokens`, `groups` and `values` (a vector each) are one per position.
    """
    weights = torch.as_tensor(weights, dtype=torch.float64)
    weights = weights.expand(1, 1, *weights.shape) if weights.dim() == 2 else weights
    batch, heads, queries, keys = weights.shape
    visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(weights.shape)
    logits = weights.clamp(min=1e-300).log().masked_fill(~visible, -torch.inf)
    real = torch.ones(batch, keys, dtype=torch.bool)
    names = tuple(dict.fromkeys(groups or ("rest",)))
    labels = None
    if groups is not None:
        labels = torch.tensor([names.index(name) for name in groups], dtype=torch.int8).expand(batch, -1)
    ids = None if tokens is None else torch.tensor(tokens).expand(batch, -1)
    wanted = frozenset(needs)
    vectors = None
    if values is not None:
        vectors = torch.as_tensor(values, dtype=torch.float64).expand(batch, heads, keys, -1)
    inputs = AttentionInputs(
        torch.zeros(batch, heads, queries, 1), torch.zeros(batch, heads, keys, 1), vectors,
        visibility=Visibility(after=0),
        key_groups=labels, query_groups=labels, group_count=len(names), query_tokens=ids, key_tokens=ids,
        targets=targets_of(wanted, real),
    )  # fmt: skip
    found = statistics_of_weights(inputs, wanted, weights, logits, logits.logsumexp(-1), visible)
    return AttentionStats(found, call or Call(heads=heads, kv_heads=heads), names, None, labels, labels, ids)
