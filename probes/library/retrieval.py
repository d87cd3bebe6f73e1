"""Retrieval heads: heads that copy the needle's tokens into the answer.

A head copies token y at a step whose output is y if its argmax key lies in the needle and holds y; the score is the
share of the needle that is copied. Source: Wu et al., "Retrieval Head Mechanistically Explains Long-Context
Factuality", section 2, and its code. Here the right answer is forced upon the model and one forward reads every step;
where the model answers by itself with the needle's words, generating gives the same hits (tests).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...data.groups import family
from ...kernels.stats import AttentionStats
from ..probe import answering, keys_in, position_of, probe

SOURCE = "Wu et al., Retrieval Head Mechanistically Explains Long-Context Factuality"


def _reachable(stats: AttentionStats, needle: Tensor, asking: Tensor) -> Tensor:
    """bool [batch, 1], whether every asking query can see the whole needle: a window may not reach back that far."""
    if stats.call.window is None:
        return torch.ones(needle.shape[0], 1, dtype=torch.bool, device=needle.device)
    place = position_of(stats)
    first = place.masked_fill(~needle, 1 << 40).amin(-1)
    last = place.masked_fill(~asking, -1).amax(-1)
    return last - first < stats.call.window


@probe(
    needs={"argmax_key"},
    groups=("needle", "answer"),
    parts=("score", "as released"),
    title="Retrieval score",
    formula=(
        "|tokens copied and of the needle| / |tokens of the needle|, each counted once; "
        "as released: hits / tokens of the needle, repeats counted again"
    ),
    unit="share of the needle",
    bounds=(0, None),
    higher="the head points at the needle's token that is said next; 0.1 makes a retrieval head, 0.5 a strong one",
    caveat="the answer is forced, right or wrong: read it beside the model's accuracy; argmax is not what is written",
    source=f"{SOURCE}, section 2; code retrieval_head_detection.py",
    default_data="needle",
    per="example",
    causal_only=True,
    not_shuffled="once tokens are shuffled the answer is not what the needle says, so nothing can be copied",
)
def retrieval(stats: AttentionStats) -> Tensor:
    """Share of the needle's tokens that the head's argmax points at when each of them is the next to be said.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0], [0, 0, 0, 0, 1]]
    >>> groups = ["needle", "needle", "rest", "answer", "answer"]  # says 7, then 8; the second step reads the 8
    >>> stats = stats_of(weights, retrieval.needs, tokens=[7, 8, 9, 7, 8], groups=groups)
    >>> retrieval.measure(stats).values[0, 0].tolist()
    [1.0, 1.0]
    """
    asking, needle = answering(stats), keys_in(stats, "needle")
    tokens = _tokens(stats)
    step, stepped = _places(asking[:, 0])
    place, placed = _places(needle[:, 0])
    best = stats["argmax_key"].gather(2, step[:, None].expand(-1, stats["argmax_key"].shape[1], -1))
    pointed = tokens[:, None].expand(-1, best.shape[1], -1).gather(2, best)
    said = tokens.gather(1, (step + 1).clamp(max=tokens.shape[1] - 1))[:, None]
    hit = stepped[:, None] & needle.expand(-1, best.shape[1], -1).gather(2, best) & (pointed == said)
    words = tokens.gather(1, place)
    kinds = placed & ~((words[:, :, None] == words[:, None, :]) & placed[:, None]).tril(-1).any(-1)
    copied = ((pointed[..., None] == words[:, None, None]) & hit[..., None]).any(2) & kinds[:, None]
    shares = (copied.sum(-1) / kinds.sum(-1, keepdim=True), hit.sum(-1) / placed.sum(-1, keepdim=True))
    testable = placed.any(-1) & stepped.any(-1) & _reachable(stats, needle, asking)[:, 0]
    return torch.where(testable[:, None, None], torch.stack(shares, dim=-1), torch.nan)


@probe(
    needs={"group_mass"},
    groups=("needle", "answer"),
    parts=("needle", "distractor"),
    title="Needle mass",
    formula="mean over the queries that must say the answer of sum_{j in needle} p_ij, and the same for the distractor",
    unit="mass",
    bounds=(0, 1),
    higher="the head reads the needle while the answer is said, wherever inside it",
    caveat="any of the needle's tokens counts, also the wrong one; compare with the distractor's part",
    source=f"{SOURCE}, section 2, with the mass in place of the argmax",
    default_data="needle",
)
def needle_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the needle, and on the distractor, of the queries that must say the answer.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0], [0.75, 0.25, 0], [0, 0, 1]]
    >>> stats = stats_of(weights, needle_mass.needs, groups=["needle", "distractor", "answer"])
    >>> needle_mass.measure(stats).values[0, 0].tolist()
    [0.75, 0.25]
    """
    asking = answering(stats)
    parts = []
    for name in ("needle", "distractor"):
        members = [stats.group_names.index(one) for one in family(name) if one in stats.group_names]
        there = keys_in(stats, name).any(-1, keepdim=True) & asking
        parts.append(torch.where(there, stats["group_mass"][..., members].sum(-1), torch.nan))
    return torch.stack(parts, dim=-1)


@probe(
    needs={"group_mass", "weight_at:first"},
    groups=("needle", "answer"),
    parts=("others", "others but the first"),
    title="Distinguishability of the needle",
    formula="x / (x + y), x and y the mean weight of a needle token and of any other visible token, answering queries",
    unit="share",
    bounds=(0, 1),
    higher="a token of the needle stands out from the context; 0.5: it weighs what any other does",
    caveat="a head that reads the first token alone is below 0.5 unless that is left out; undefined where x = y = 0",
    source="Zhuang et al., Mask-Enhanced Autoregressive Prediction (MEAP), section 5 (attention on the answer)",
    default_data="needle",
    causal_only=True,
)
def distinguishability(stats: AttentionStats) -> Tensor:
    """How far the weight of the needle's tokens stands out from that of the context while the answer is said.

    >>> from headatlas.probes.worked import stats_of
    >>> weights = [[1, 0, 0, 0], [0, 1, 0, 0], [0.4, 0.3, 0.3, 0], [0, 0, 0, 1]]
    >>> stats = stats_of(weights, distinguishability.needs, groups=["rest", "needle", "rest", "answer"])
    >>> [round(one, 4) for one in distinguishability.measure(stats).values[0, 0].tolist()]  # 0.3 by 0.35, and by 0.3
    [0.4615, 0.5]
    """
    asking, needle = answering(stats), keys_in(stats, "needle")
    members = [stats.group_names.index(one) for one in family("needle") if one in stats.group_names]
    mass, first = stats["group_mass"][..., members].sum(-1), stats["weight_at:first"]
    count, visible = needle.long().cumsum(-1), stats["visible_keys"]
    whole = stats["group_mass"].sum(-1)
    first_is_needle = (needle & (position_of(stats) == 0)).any(-1, keepdim=True)
    testable = asking & (count > 0) & _reachable(stats, needle, asking)[..., None]
    parts = []
    for left_out, keys in ((0.0, 0), (first, (visible > position_of(stats)).long())):
        others = visible - count - keys
        x, y = mass / count.clamp(min=1), (whole - mass - left_out).clamp(min=0) / others.clamp(min=1)
        fits = testable & (others > 0) & (x + y > 0)
        parts.append(torch.where(fits, x / (x + y), torch.nan))
    parts[1] = parts[1].masked_fill(first_is_needle, torch.nan)
    return torch.stack(parts, dim=-1)


def _tokens(stats: AttentionStats) -> Tensor:
    """Ids of the keys [batch, key]; all -1, which equal nothing said, where the batch does not know them."""
    if stats.key_tokens is not None:
        return stats.key_tokens.long()
    batch, _, queries = stats["visible_keys"].shape
    return torch.full((batch, queries), -1, device=stats["visible_keys"].device)


def _places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(index, there), both [batch, n], of the True places of mask [batch, position], n the most of any example."""
    most = max(1, int(mask.sum(-1).max()))
    there, index = mask.to(torch.int8).sort(dim=-1, descending=True, stable=True)
    return index[:, :most], there[:, :most].bool()
