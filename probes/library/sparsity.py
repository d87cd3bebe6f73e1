"""How unequal a row of weights is: Gini coefficient, keys that reach 95 %, and where the mass lies by distance.

Whole rows are looked at, so only the last 64 queries of a prompt are: those with the longest context. Each value is a
mean over them, and a prompt of fewer tokens is undefined.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe

TAIL = 64
"""Last queries of a prompt."""
COVERED = 0.95


def _rows(stats: AttentionStats) -> tuple[Tensor, Tensor]:
    """(weights [batch, head, row, key] of the last queries, renormalised; bool [batch, head], all of them there)."""
    rows = stats[f"tail_weights:{TAIL}"]
    mass = rows.sum(-1, keepdim=True)
    there = (mass[..., 0] > 0).all(-1) & (position_of(stats).amax(-1) >= TAIL - 1)
    return rows / mass.clamp(min=1e-30), there


def _visible(stats: AttentionStats) -> Tensor:
    """[batch, 1 or head, row], keys that each of the last queries sees."""
    place = position_of(stats).amax(-1, keepdim=True) - torch.arange(
        TAIL - 1, -1, -1, device=stats["visible_keys"].device
    )
    seen = place.clamp(min=0) + 1
    return seen if stats.call.window is None else seen.clamp(max=stats.call.window)


@probe(
    needs={f"tail_weights:{TAIL}"},
    title="Gini coefficient",
    formula="mean_i sum_k (2 k - n - 1) p_(k) / n, p_(1) <= ... <= p_(n) the row's weights in order, last 64 queries",
    unit="0 equal, 1 one key",
    bounds=(0, 1),
    higher="few keys hold the mass of each row",
    caveat="a sink gives 1 as well as a retrieval head does; prompts of fewer than 64 tokens are undefined",
    source="Gini index as a measure of sparsity: Hurley and Rickard, Comparing Measures of Sparsity",
    per="example",
    causal_only=True,
    first_queries=TAIL,
)
def gini(stats: AttentionStats) -> Tensor:
    """Mean Gini coefficient of the weights over the keys each query sees.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(64, 64)
    >>> weights[:, 0] = 1.0  # one key of n: (n - 1) / n
    >>> expected = sum((n - 1) / n for n in range(1, 65)) / 64
    >>> round(gini.measure(stats_of(weights, gini.needs)).values.item() - expected, 4)
    0.0
    """
    rows, there = _rows(stats)
    seen = _visible(stats)[..., None].to(rows.dtype)
    ordered = rows.sort(dim=-1, descending=True).values
    rank = torch.arange(rows.shape[-1], device=rows.device, dtype=rows.dtype)  # 0 for the largest: 2 (n - rank) - n - 1
    value = (ordered * (seen - 2 * rank - 1)).sum(-1) / seen[..., 0]
    return torch.where(there, value.mean(-1), torch.nan)


@probe(
    needs={f"tail_weights:{TAIL}"},
    title="Coverage (95 %)",
    formula="mean_i of (fewest keys whose weights reach 0.95 of the row) / (keys the query sees), last 64 queries",
    unit="share of the keys",
    bounds=(0, 1),
    higher="the head needs many keys: sparse attention would cost it mass",
    caveat="mass, not output; a share of the keys, so it falls with length where the number of keys stays",
    source="gamma-coverage as in FlexPrefill (Lai et al.), section 3",
    per="example",
    causal_only=True,
    first_queries=TAIL,
)
def coverage(stats: AttentionStats) -> Tensor:
    """Share of the visible keys that is needed for 95 % of the attention.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.ones(100, 100).tril()
    >>> weights = weights / weights.sum(-1, keepdim=True)
    >>> round(coverage.measure(stats_of(weights, coverage.needs)).values.item(), 2)  # ceil(0.95 n) / n
    0.96
    """
    rows, there = _rows(stats)
    running = rows.sort(dim=-1, descending=True).values.cumsum(-1)
    needed = (running < COVERED - 1e-6).sum(-1) + 1
    return torch.where(there, (needed / _visible(stats)).clamp(max=1).mean(-1), torch.nan)


EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""A bucket begins at each of these distances and ends before the next; the query itself is a bucket of its own."""
BUCKETS = ("0", *(f"{low}-{2 * low - 1}" if low > 1 else "1" for low in EDGES[:-1]), f"{EDGES[-1]}+")


@probe(
    needs={f"tail_weights:{TAIL}"},
    parts=BUCKETS,
    title="Locality curve",
    formula="mean_i sum of p_ij over the distances i - j of each bucket, which double; last 64 queries",
    unit="mass",
    bounds=(0, 1),
    higher="the head reads at this distance",
    caveat="farther buckets hold more keys; a first-token sink is in the last one; undefined where no query reaches it",
    source="locality of attention by distance; log-binned mean attention distance",
    per="example",
    causal_only=True,
    first_queries=TAIL,
)
def locality(stats: AttentionStats) -> Tensor:
    """Attention weight by distance, in buckets that double: 0, 1, 2-3, 4-7, ...

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = 0.75 * torch.eye(70) + 0.25 * torch.eye(70).roll(-3, 1).tril()  # itself, and three tokens back
    >>> locality.measure(stats_of(weights, locality.needs)).values[0, 0, :4].tolist()
    [0.75, 0.0, 0.25, 0.0]
    """
    rows, there = _rows(stats)
    offset = _offsets(stats, rows)
    bucket = torch.where(offset > 0, offset.clamp(min=1).log2().floor().long() + 1, 0).clamp(max=len(BUCKETS) - 1)
    wanted = torch.nn.functional.one_hot(bucket, len(BUCKETS)).to(rows.dtype)
    mass = torch.einsum("bhrk,brkc->bhc", rows, wanted) / TAIL
    reach = _visible(stats)[:, 0].amax(-1)
    first = torch.tensor([0, *EDGES], device=reach.device)
    exists = reach[:, None, None] > first
    return torch.where(there[..., None] & exists, mass, torch.nan)


def _offsets(stats: AttentionStats, rows: Tensor) -> Tensor:
    """i - j, int64 [batch, row, key], positions counted over real tokens."""
    place = position_of(stats)[:, 0]
    last = place.amax(-1, keepdim=True) - torch.arange(TAIL - 1, -1, -1, device=place.device)
    return (last[:, :, None] - place[:, None, :]).clamp(min=0)
