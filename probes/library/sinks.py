"""Attention sinks: weight on the first token of the sequence.

alpha_k = 1/(T - k + 1) sum_{t=k..T} p_tk is how much key k receives on average from the queries that can see it, and
Sink_k^eps = mean over heads of 1[alpha_k > eps]. Source: Gu et al., "When Attention Sink Emerges in Language Models: An
Empirical View", section 3, and its code. Neither probe says why the weight is there, nor what ablating the head does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe

SOURCE = "Gu et al., When Attention Sink Emerges in Language Models, section 3"
LENGTH = 64
"""Tokens that Sink_1 is measured on; the paper fixes it, because the value falls with length."""
THRESHOLD = 0.3


@probe(
    needs={"weight_at:first"},
    title="First-token mass",
    formula="alpha_1 = mean_i p_i,1 over the queries i that can see the first token",
    unit="mass",
    bounds=(0, 1),
    higher="the head parks its attention on the first token",
    caveat="row 1 is included and gives 1 by itself (1/T of the mean); says nothing of what the head writes",
    source=SOURCE,
)
def first_token_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the first real token, BOS or not.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [0.5, 0.5, 0], [0.3, 0.3, 0.4]], first_token_mass.needs)
    >>> round(first_token_mass.measure(stats).values.item(), 4)
    0.6
    """
    mass = stats["weight_at:first"]
    window = stats.call.window
    return mass if window is None else mass.masked_fill(position_of(stats) >= window, torch.nan)


@probe(
    needs={"weight_at:first"},
    title="Sink rate (Sink\u2081, eps 0.3)",
    formula="1[alpha_1 > 0.3], alpha_1 = mean of p_i,1 over the first 64 queries; the mean over examples is the rate",
    unit="share of examples",
    bounds=(0, 1),
    higher="in most texts this head is a first-token sink",
    caveat="undefined below 64 tokens, for shorter windows and for bidirectional models; depends on eps and T",
    source=SOURCE,
    binary=True,
    per="example",
    causal_only=True,
    first_queries=LENGTH,
)
def sink_rate(stats: AttentionStats) -> Tensor:
    """Whether the first token receives more than 0.3 on average from the first 64 queries (paper defaults).

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(64, 64)
    >>> weights[:, 0], weights[20:, 0] = 1.0, 0.0
    >>> sink_rate.measure(stats_of(weights, sink_rate.needs)).values.item()  # alpha_1 = 20/64 = 0.3125
    1.0
    """
    mass = stats["weight_at:first"]
    window = stats.call.window
    first = (position_of(stats) < LENGTH) & (stats["visible_keys"] > 0)
    if stats.real_queries is not None:
        first = first & stats.real_queries[:, None]
    alpha = (mass * first).sum(-1) / LENGTH
    testable = (first.sum(-1) == LENGTH) & (window is None or window >= LENGTH)
    return torch.where(testable, (alpha > THRESHOLD).to(mass.dtype), torch.nan)
