"""Extreme tokens: attention sink, value drain and dormancy of the first token, which come together.

Source: Guo et al., "Active-Dormant Attention Heads: Mechanistically Demystifying Extreme-Token Phenomena in LLMs". A
head is dormant where it reads the first token, whose values are drained, and so writes next to nothing; it is active
where something it is for appears. Residual-state peaks belong to the stream and not to a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, queries_in, total, watchers

SOURCE = "Guo et al., Active-Dormant Attention Heads"


def _real(stats: AttentionStats) -> Tensor:
    """bool [batch, 1, position], True for real tokens."""
    if stats.real_queries is not None:
        return stats.real_queries[:, None]
    batch, _, queries = stats["visible_keys"].shape
    return torch.ones(batch, 1, queries, dtype=torch.bool, device=stats["visible_keys"].device)


@probe(
    needs={"value_norm"},
    title="Value drain",
    formula="||v_1|| / mean of ||v_j|| over j > 1",
    unit="ratio",
    bounds=(0, None),
    higher="the first token's values are as large as any; near 0 they are drained and reading it writes nothing",
    caveat="heads that share keys and values read alike; says nothing of how much the head attends there",
    source=f"{SOURCE}, section 2 (value-state drains)",
    per="example",
    causal_only=True,
)
def value_drain(stats: AttentionStats) -> Tensor:
    """Norm of the first token's value vector over the mean norm of the others.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [1, 0, 0], [1, 0, 0]], value_drain.needs, values=[[0.3, 0.4], [3, 4], [1, 0]])
    >>> round(value_drain.measure(stats).values.item(), 4)  # 0.5 / 3
    0.1667
    """
    norm, real = stats["value_norm"], _real(stats)
    first = real & (position_of(stats) == 0)
    others = real & ~first
    count = others.sum(-1)
    mean = total(norm, others) / count.clamp(min=1)
    return torch.where((count > 0) & (mean > 0), total(norm, first) / mean, torch.nan)


@probe(
    needs={"weight_at:first", "value_norm", "value_weighted_mass"},
    title="First token's weighted share",
    formula="mean_i p_i,1 ||v_1|| / sum_j p_ij ||v_j||",
    unit="share",
    bounds=(0, 1),
    higher="what the head writes comes from the first token, not only what it reads",
    caveat="norms add up where vectors may cancel; where it is far below first_token_mass the sink is drained",
    source=f"{SOURCE}, section 2; norm-weighted attention of Kobayashi et al., Attention is Not Only a Weight",
    causal_only=True,
)
def first_token_share(stats: AttentionStats) -> Tensor:
    """Share of the first token in the attention weighted by the norms of the values.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.8, 0.2]], first_token_share.needs, values=[[1, 0], [0, 4]])
    >>> first_token_share.measure(stats).values.item()  # row 1: 1; row 2: 0.8 / (0.8 + 0.8)
    0.75
    """
    first = (_real(stats) & (position_of(stats) == 0)).to(stats["value_norm"].dtype)
    norm = (stats["value_norm"] * first).sum(-1, keepdim=True)
    whole = stats["value_weighted_mass"].sum(-1)
    return torch.where(whole > 0, stats["weight_at:first"] * norm / whole.clamp(min=1e-30), torch.nan).clamp(max=1)


@probe(
    needs={"weight_at:first"},
    groups=("other",),
    parts=("off", "on", "difference"),
    title="Active-dormant",
    formula="mean of p_i,1 over queries off and on the tokens the head is for (label other), and off - on",
    unit="mass",
    bounds=(-1, 1),
    higher="off: the head is parked; difference: it wakes up at the tokens it is for",
    caveat="shows that the head lets go of its sink, not what it does then; off leaves the first token out",
    source=f"{SOURCE}, section 3 (Bigram-Backcopy: BOS attention off and on triggers)",
    default_data="bigram_backcopy",
    per="example",
    causal_only=True,
)
def active_dormant(stats: AttentionStats) -> Tensor:
    """First-token mass off and on the trigger tokens, and the difference: 1 for a head that only wakes for triggers.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0], [0.9, 0.1, 0], [0.1, 0.9, 0]]
    >>> stats = stats_of(weights, active_dormant.needs, groups=["bos", "rest", "other"])
    >>> [round(value, 4) for value in active_dormant.measure(stats).values[0, 0].tolist()]
    [0.9, 0.1, 0.8]
    """
    mass, on = stats["weight_at:first"], queries_in(stats, "other") & _real(stats)
    off = _real(stats) & ~on & (position_of(stats) > 0) & on.any(-1, keepdim=True)
    means = [torch.where(where, mass, torch.nan).nanmean(-1) for where in (off, on)]
    return torch.stack([*means, means[0] - means[1]], dim=-1)


@probe(
    needs={"entropy", "received_entropy"},
    parts=("row", "column"),
    title="Sink-head detector",
    formula="row: mean_i H_i / ln i (0 for i = 1); column: max_k H(column k over its queries) / ln(queries that see k)",
    unit="share of the maximum",
    bounds=(0, 1),
    higher="row: attention is spread; column: all queries read one key alike. A sink head has a low row, a high column",
    caveat="two thresholds decide, and the source gives none; columns that fewer than 16 queries see are left out",
    source=f"{SOURCE}, released code (entropy.py)",
    per="example",
    causal_only=True,
)
def sink_detector(stats: AttentionStats) -> Tensor:
    """How narrow the rows are and how even the most even column is: the two scores that find sink heads unseen.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(20, 20)
    >>> weights[:, 0] = 1.0  # every query reads the first token alone
    >>> values = sink_detector.measure(stats_of(weights, sink_detector.needs)).values[0, 0]
    >>> [round(value, 4) for value in values.tolist()]
    [0.0, 1.0]
    """
    real, keys = _real(stats), stats["visible_keys"]
    most = keys.clamp(min=2).log()
    rows = total(stats["entropy"] / most, real) / real.sum(-1)
    count = watchers(stats)
    seen = real & (count >= 16)
    columns = torch.where(seen, stats["received_entropy"] / count.clamp(min=2).log(), -torch.inf).amax(-1)
    testable = seen.any(-1)
    return torch.stack([rows, torch.where(testable, columns, torch.nan)], dim=-1)
