"""Streaming heads: what a small cache of sinks and recent tokens would keep of a head's attention.

Sources: Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (StreamingLLM); Xiao et al.,
"DuoAttention"; Zhang et al., "H2O"; Xu et al., "Recycled Attention"; Entezari Zarch et al., "DELTA". High recall is no
proof that the rest can go: a little mass can carry the answer. Swap the head and look at the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe

CACHES = ((4, 16), (4, 64), (64, 256))
"""(sinks, recent tokens); the last one is what DuoAttention deploys."""
TAIL = 64
"""Last queries of a prompt on which whole rows are looked at."""


@probe(
    needs={f"start_mass:{sinks}" for sinks, _ in CACHES} | {f"window_mass:{recent}" for _, recent in CACHES},
    parts=tuple(f"{sinks}+{recent}" for sinks, recent in CACHES),
    title="Streaming recall",
    formula="mean_i of sum p_ij over j <= s or i - j < r, over queries that see more than s + r keys",
    unit="mass",
    bounds=(0, 1),
    higher="a cache of s sinks and r recent tokens keeps what the head reads",
    caveat="mass, not output: the little that is lost may be the answer; undefined for prompts that fit the cache",
    source="StreamingLLM, section 3; DuoAttention, section 2.2 (streaming heads)",
    causal_only=True,
)
def streaming_recall(stats: AttentionStats) -> Tensor:
    """Mean attention weight that sinks and recent tokens keep, over the queries for which they leave something out.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(30)
    >>> weights[21:] = 0.0
    >>> weights[21:, 10] = 1.0  # far from both: lost until the tenth token is neither sink nor recent
    >>> streaming_recall.measure(stats_of(weights, streaming_recall.needs)).values[0, 0, 0].item()  # i = 20..29
    0.6
    """
    keys = stats["visible_keys"]
    parts = [
        torch.where(keys > sinks + recent, stats[f"start_mass:{sinks}"] + stats[f"window_mass:{recent}"], torch.nan)
        for sinks, recent in CACHES
    ]
    return torch.stack(parts, dim=-1).clamp(max=1)


SHARES = (0.05, 0.1, 0.2)


@probe(
    needs={"received"},
    parts=tuple(f"{share:.0%}" for share in SHARES),
    title="Heavy hitters",
    formula="share of sum_k C_k held by the largest 5, 10, 20 % of the C_k, C_k = sum_i p_ik",
    unit="share of the mass",
    bounds=(0, 1),
    higher="few keys gather nearly all attention: a cache of heavy hitters serves this head",
    caveat="C_k sums over the queries that see k, which favours early keys, as in the paper; a first-token sink is one",
    source="Zhang et al., H2O: Heavy-Hitter Oracle, section 3",
    per="example",
)
def heavy_hitters(stats: AttentionStats) -> Tensor:
    """Share of all attention that the most attended 5, 10 and 20 % of the keys receive.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(20, 20)
    >>> weights[:, 0] = 0.5  # half to the first key, half to itself
    >>> weights += 0.5 * torch.eye(20)
    >>> heavy_hitters.measure(stats_of(weights, heavy_hitters.needs)).values[0, 0].tolist()  # 10.5, 11, 12 of 20
    [0.525, 0.55, 0.6]
    """
    received = stats["received"]
    real = stats.real_queries
    length = received.shape[-1] if real is None else real.sum(-1)[:, None]
    total = received.sum(-1)
    running = received.sort(dim=-1, descending=True).values.cumsum(-1)
    parts = []
    for share in SHARES:
        count = torch.as_tensor(length * share, device=received.device).ceil().long().clamp(min=1)
        at = (count - 1).expand(total.shape)[..., None]
        parts.append(torch.where(total > 0, running.gather(-1, at).squeeze(-1) / total, torch.nan))
    return torch.stack(parts, dim=-1)


GAPS = (1, 8, 32)
KEPT = 16


@probe(
    needs={f"tail_weights:{TAIL}"},
    parts=tuple(str(gap) for gap in GAPS),
    title="Top-key persistence",
    formula=f"mean_t of mass of row t + gap on row t's top {KEPT} keys / on its own top {KEPT}; last {TAIL} queries",
    unit="share",
    bounds=(0, 1),
    higher="the keys a head needs now are those it needed `gap` tokens ago: its cache can be reused",
    caveat=f"the gap's new tokens can't be among the old keys; undefined for prompts of fewer than {TAIL} tokens",
    source="Xu et al., Recycled Attention, section 3 (recovered attention mass of the last full step's top keys)",
    per="example",
    causal_only=True,
    first_queries=TAIL,
)
def persistence(stats: AttentionStats) -> Tensor:
    """How much of a row's top-16 mass the top 16 keys of an earlier row still hold.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(80, 80)
    >>> weights[:, 0] = 1.0
    >>> persistence.measure(stats_of(weights, persistence.needs)).values[0, 0].tolist()  # always the same key
    [1.0, 1.0, 1.0]
    """
    rows = stats[f"tail_weights:{TAIL}"]
    testable = (rows.sum(-1) > 0).all(-1) & (position_of(stats).amax(-1) >= TAIL - 1)
    top, keys = rows.topk(min(KEPT, rows.shape[-1]), dim=-1)
    own, there = top.sum(-1), top > 0  # a row of fewer keys than that keeps those it has
    parts = []
    for gap in GAPS:
        if rows.shape[-2] <= gap:
            parts.append(own.new_full(own.shape[:2], torch.nan))
            continue
        recovered = (rows[..., gap:, :].gather(-1, keys[..., :-gap, :]) * there[..., :-gap, :]).sum(-1)
        parts.append((recovered / own[..., gap:]).mean(-1))
    return torch.where(testable[..., None], torch.stack(parts, dim=-1).clamp(max=1), torch.nan)


@probe(
    needs={f"tail_weights:{TAIL}"},
    title="Top keys of the layer before",
    formula=(
        f"mean_i of the row's mass on the {KEPT} keys that the heads of the layer before read most (mean weight, "
        f"same query) / on its own top {KEPT}; last {TAIL} queries"
    ),
    unit="share",
    bounds=(0, 1),
    higher="the layer before already found this head's keys: it could attend to those alone",
    caveat=f"keys and not pages, and one layer back; undefined in the first layer and below {TAIL} tokens",
    source="Entezari Zarch et al., DELTA: Dynamic Layer-Aware Token Attention, section 3 (reuse of selected tokens)",
    per="example",
    causal_only=True,
    first_queries=TAIL,
)
def layer_persistence(stats: AttentionStats) -> Tensor:
    """How much of a row's top-16 mass lies on the keys that the layer before would select for it.

    >>> import torch
    >>> from dataclasses import replace
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(80, 80)
    >>> weights[:, 0] = 1.0
    >>> stats = stats_of(weights, layer_persistence.needs)
    >>> before = replace(stats, layer_before={"tail_weights:64": stats["tail_weights:64"]})
    >>> layer_persistence.measure(before).values.item(), layer_persistence.measure(stats).values.item()
    (1.0, nan)
    """
    rows = stats[f"tail_weights:{TAIL}"]
    testable = (rows.sum(-1) > 0).all(-1) & (position_of(stats).amax(-1) >= TAIL - 1)
    if not stats.layer_before:
        return rows.new_full(testable.shape, torch.nan)
    kept = min(KEPT, rows.shape[-1])
    chosen = stats.layer_before[f"tail_weights:{TAIL}"].topk(kept, dim=-1)
    found = (rows.gather(-1, chosen.indices.expand(*rows.shape[:-1], -1)) * (chosen.values > 0)).sum(-1)
    share = (found / rows.topk(kept, dim=-1).values.sum(-1)).mean(-1).clamp(max=1)
    return torch.where(testable, share, torch.nan)
