"""Attention statistics from weights written by hand: for worked examples, tests of probes, and maps from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.inputs import AttentionInputs, Visibility
from ..kernels.reference import statistics_of_weights
from ..kernels.stats import AttentionStats, Call
from .residual import residual_stats
from .targets import targets_of


def stats_of(
    weights: Tensor | Sequence[Any],
    needs: Iterable[str],
    *,
    tokens: Sequence[int] | None = None,
    groups: Sequence[str] | None = None,
    values: Tensor | Sequence[Any] | None = None,
    queries: Tensor | Sequence[Any] | None = None,
    keys: Tensor | Sequence[Any] | None = None,
    delimiters: Sequence[bool] | None = None,
    call: Call | None = None,
) -> AttentionStats:
    """Statistics of given causal weights [query, key] (or [batch, head, query, key]), rows summing to 1.

    Logits are the logarithms of the weights; `tokens`, `groups` and `values`, `queries`, `keys` (a vector each) are one
    per position. Queries and keys make no weights: they are for what is said of them apart.
    """
    weights = torch.as_tensor(weights, dtype=torch.float64)
    weights = weights.expand(1, 1, *weights.shape) if weights.dim() == 2 else weights
    batch, heads, rows, columns = weights.shape
    visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows).expand(weights.shape)
    logits = weights.clamp(min=1e-300).log().masked_fill(~visible, -torch.inf)
    real = torch.ones(batch, columns, dtype=torch.bool)
    names = tuple(dict.fromkeys(groups or ("rest",)))
    labels = None
    if groups is not None:
        labels = torch.tensor([names.index(name) for name in groups], dtype=torch.int8).expand(batch, -1)
    ids = None if tokens is None else torch.tensor(tokens).expand(batch, -1)
    wanted = frozenset(needs)
    if any(name.startswith("tail_estimate") for name in wanted) and (queries is None or keys is None):
        raise ValueError("tail_estimate is made of queries and keys apart: pass `queries` and `keys`, a vector each")

    def vectors(given: Tensor | Sequence[Any] | None, count: int) -> Tensor | None:
        return None if given is None else torch.as_tensor(given, dtype=torch.float64).expand(batch, heads, count, -1)

    query, key = vectors(queries, rows), vectors(keys, columns)
    inputs = AttentionInputs(
        torch.zeros(batch, heads, rows, 1) if query is None else query,
        torch.zeros(batch, heads, columns, 1) if key is None else key,
        vectors(values, columns),
        visibility=Visibility(after=0),
        key_groups=labels, query_groups=labels, group_count=len(names), query_tokens=ids, key_tokens=ids,
        targets=targets_of(wanted, real),
    )  # fmt: skip
    found = statistics_of_weights(inputs, wanted, weights, logits, logits.logsumexp(-1), visible)
    marks = None if delimiters is None else torch.tensor(delimiters).expand(batch, -1)
    return AttentionStats(found, call or Call(heads=heads, kv_heads=heads), names, None, labels, labels, ids, marks)


def stream_of(hidden: Tensor | Sequence[Any], needs: Iterable[str]) -> AttentionStats:
    """Statistics of a residual stream written by hand, [token, d_model] or [batch, token, d_model]."""
    states = torch.as_tensor(hidden, dtype=torch.float32)
    return AttentionStats(residual_stats(states[None] if states.dim() == 2 else states, needs), Call())
