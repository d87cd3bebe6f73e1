"""Attention sinks: weight on the first token of the sequence, and on other tokens that everybody reads.

alpha_k = 1/(T - k + 1) sum_{t=k..T} p_tk is how much key k receives on average from the queries that can see it, and
Sink_k^eps = mean over heads of 1[alpha_k > eps]. Source: Gu et al., "When Attention Sink Emerges in Language Models: An
Empirical View", section 3, and its code. No probe here says why the weight is there, nor what ablating the head does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, total, watchers

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
    alpha = total(mass, first) / LENGTH
    testable = (first.sum(-1) == LENGTH) & (window is None or window >= LENGTH)
    return torch.where(testable, (alpha > THRESHOLD).to(mass.dtype), torch.nan)


ONSETS = (16, 32, 64, 128, 256, 512, 1024)


@probe(
    needs={"weight_at:first"},
    parts=tuple(str(length) for length in ONSETS),
    title="Sink onset",
    formula="alpha_1 = mean of p_i,1 over the first T queries, one part per T",
    unit="mass",
    bounds=(0, 1),
    higher="after T tokens the head parks this much of its attention on the first one",
    caveat="alpha_1 is at least 1/T, for row 1 gives 1; parts longer than the prompt (or the window) are undefined",
    source=f"{SOURCE}: the metric by sequence length",
    per="example",
    causal_only=True,
)
def sink_onset(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the first token over the first 16, 32, ... queries: how the sink sets in with length.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(32, 32)
    >>> weights[:16, 0], weights[16:, 1] = 1.0, 1.0
    >>> sink_onset.measure(stats_of(weights, sink_onset.needs)).values[0, 0, :3].tolist()
    [1.0, 0.5, nan]
    """
    mass, place, window = stats["weight_at:first"], position_of(stats), stats.call.window
    real = stats["visible_keys"] > 0
    if stats.real_queries is not None:
        real = real & stats.real_queries[:, None]
    parts = []
    for length in ONSETS:
        first = real & (place < length)
        testable = (first.sum(-1) == length) & (window is None or window >= length)
        parts.append(torch.where(testable, total(mass, first) / length, torch.nan))
    return torch.stack(parts, dim=-1)


@probe(
    needs={"received"},
    parts=("5/N", "0.1"),
    title="Hidden sinks",
    formula="number of keys k > 1 with alpha_k > theta, theta = 5/N of N tokens, or 0.1 as in the released code",
    unit="tokens",
    bounds=(0, None),
    higher="tokens other than the first one gather attention from all later queries",
    caveat="the last keys are seen by few queries and easily pass: alpha_N is one query's weight on itself",
    source="Yu et al., Unveiling and Harnessing Hidden Attention Sinks (ACT), section 3; the code's theta is a part",
    per="key",
    together="sum",
    causal_only=True,
)
def hidden_sinks(stats: AttentionStats) -> Tensor:
    """Number of tokens beside the first that receive more than theta of every query that can see them.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0.95, 0, 0.05]]
    >>> stats = stats_of(weights, hidden_sinks.needs)
    >>> hidden_sinks.measure(stats).values[0, 0].tolist()  # alpha_2 = 0.983; 5/N = 1.25, out of reach of 4 tokens
    [0.0, 1.0]
    """
    count, place = watchers(stats), position_of(stats)
    alpha = stats["received"] / count.clamp(min=1)
    length = place.amax(-1, keepdim=True) + 1
    found = torch.stack([alpha > 5 / length, alpha > 0.1], dim=-1).to(alpha.dtype)
    return found.masked_fill((place == 0)[..., None], torch.nan)


WATCHERS = 16
"""Queries that must see a key before its mean is read as that of a sink."""


@probe(
    needs={"received"},
    title="Largest later sink",
    formula=f"max alpha_k over keys k > 1 that at least {WATCHERS} queries can see",
    unit="mass",
    bounds=(0, 1),
    higher="some token beside the first one is a sink of this head; its token-by-token list shows which",
    caveat="a topic word that many queries read looks the same; on repeats and lists it is no sink",
    source=f"{SOURCE}: alpha_k for all k",
    per="key",
    together="max",
    causal_only=True,
)
def later_sink(stats: AttentionStats) -> Tensor:
    """The most that any token beside the first receives on average from the queries that can see it.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(20)
    >>> weights[3:] = 0.25 * torch.eye(20)[3:] + 0.75 * torch.eye(20)[2]  # the third token, from the fourth query on
    >>> round(later_sink.measure(stats_of(weights, later_sink.needs)).values.item(), 4)  # (1 + 17 * 0.75) / 18
    0.7639
    """
    count = watchers(stats)
    alpha = stats["received"] / count.clamp(min=1)
    return alpha.masked_fill((position_of(stats) == 0) | (count < WATCHERS), torch.nan)


@probe(
    needs={"received"},
    parts=("first", "delimiter", "word"),
    title="Sinks by token type",
    formula=f"mean alpha_k over the first token, over delimiters, over words; keys that {WATCHERS} queries can see",
    unit="mass",
    bounds=(0, 1),
    higher="tokens of this type gather the head's attention: delimiters as much as the first are sinks too",
    caveat="a delimiter has no letter and no digit; early tokens are seen by more queries, whatever their type",
    source=f"{SOURCE}; Sun et al., Massive Activations, section 4 (the first token, delimiters)",
    per="key",
    causal_only=True,
)
def sinks_by_type(stats: AttentionStats) -> Tensor:
    """Mean attention that the first token, delimiters and words receive from the queries that can see them.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(20)
    >>> weights[3:] = 0.25 * torch.eye(20)[3:] + 0.75 * torch.eye(20)[2]  # the third token, a full stop
    >>> stats = stats_of(weights, sinks_by_type.needs, delimiters=[index == 2 for index in range(20)])
    >>> [round(one, 4) for one in sinks_by_type.measure(stats).values[0, 0].tolist()]  # words: 1/19, then 0.25/17, ...
    [0.05, 0.7639, 0.0277]
    """
    count, first = watchers(stats), position_of(stats) == 0
    alpha = stats["received"] / count.clamp(min=1)
    given = stats.key_delimiters
    marks = torch.zeros_like(first) if given is None else given.to(alpha.device)[:, None]
    types = (first, ~first & marks, ~first & ~marks & (given is not None))
    return torch.stack([alpha.masked_fill(~one | (count < WATCHERS), torch.nan) for one in types], dim=-1)


FIRST = 8


@probe(
    needs={"received"},
    parts=tuple(f"k={place}" for place in range(1, FIRST + 1)),
    title="Sink rate by token (Sink\u2096, eps 0.3)",
    formula="1[alpha_k > 0.3] for k = 1..8, alpha_k = mean of p_ik over all queries i >= k; its mean is the rate",
    unit="share of examples",
    bounds=(0, 1),
    higher="in most texts this head makes the k-th token a sink",
    caveat="over the whole prompt, and the rate falls with its length: text:length=64 is the paper's",
    source=f"{SOURCE}: Sink_k for all k, as its code prints",
    binary=True,
    per="example",
    causal_only=True,
)
def sink_rates(stats: AttentionStats) -> Tensor:
    """Whether each of the first eight tokens receives more than 0.3 on average of the queries that can see it.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(20)
    >>> weights[1:] = 0.5 * weights[1:] + 0.5 * torch.eye(20)[1]  # half of every row on the second token
    >>> sink_rates.measure(stats_of(weights, sink_rates.needs)).values[0, 0, :3].tolist()
    [0.0, 1.0, 0.0]
    """
    count, place = watchers(stats), position_of(stats)
    alpha = stats["received"] / count.clamp(min=1)
    real = torch.ones_like(place, dtype=torch.bool) if stats.real_queries is None else stats.real_queries[:, None]
    seen = real & (count >= WATCHERS)
    parts = []
    for index in range(FIRST):
        at = seen & (place == index)
        parts.append(torch.where(at.any(-1), (total(alpha, at) > THRESHOLD).to(alpha.dtype), torch.nan))
    return torch.stack(parts, dim=-1)


@probe(
    needs={"weight_at:first", "weight_at:self", "logsumexp", "logit_sum", "max_logit"},
    title="Sink logit gap",
    formula="mean_i z_i,1 - mean of z_ij over 1 < j < i",
    unit="logits",
    bounds=(None, None),
    higher="the first token's logit stands above those of ordinary keys: the sink is in QK, not in a lack of rivals",
    caveat="undefined where the first token's weight is below float32's range; softmax does not see the logits' level",
    source="Guo et al., Active-Dormant Attention Heads, section 3 (the logit gap of the sink)",
    causal_only=True,
)
def sink_logit_gap(stats: AttentionStats) -> Tensor:
    """Mean difference between the logit of the first token and the mean logit of the keys between it and the query.

    >>> import math
    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [0.5, 0.5, 0], [0.8, 0.1, 0.1]], sink_logit_gap.needs)
    >>> round(sink_logit_gap.measure(stats).values.item() - math.log(8), 4)  # query 3 alone has a key between
    0.0
    """
    keys = stats["visible_keys"]
    first, itself = (stats["logsumexp"] + stats[f"weight_at:{name}"].log() for name in ("first", "self"))
    others = stats["logit_sum"] + keys * stats["max_logit"] - first - itself
    gap = first - others / (keys - 2).clamp(min=1)
    whole = (keys == position_of(stats) + 1) & (keys > 2) & gap.isfinite()
    return torch.where(whole, gap, torch.nan)


ROUNDING = 1e-5
"""Less than this lacks to 1 in any row of float32 weights."""


@probe(
    needs={"row_mass"},
    title="Sink slot mass",
    formula="mean_i (1 - sum_j p_ij)",
    unit="mass",
    bounds=(0, 1),
    higher="the head parks its attention on the learned sink logit, which is no token",
    caveat="0 in models without learned sink logits, whatever their first token does",
    source="learned sink logits as in gpt-oss; sink token and KV biases of Gu et al., section 7",
)
def sink_slot_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on a learned sink logit: what the weights of a row lack to 1.

    >>> from headatlas.probes.worked import stats_of
    >>> sink_slot_mass.measure(stats_of([[1, 0], [0.25, 0.5]], sink_slot_mass.needs)).values.item()
    0.125
    """
    left = 1 - stats["row_mass"]
    return torch.where(left > ROUNDING, left, 0.0)
