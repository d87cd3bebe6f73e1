"""The residual stream layer by layer: peaks at single tokens, and massive activations in single dimensions.

Sources: Guo et al., "Active-Dormant Attention Heads" (residual-state peaks); Sun et al., "Massive Activations in Large
Language Models"; Gu et al., "When Attention Sink Emerges" (norm ratio of the first token). These speak of a whole
layer: their rows have no head. A peak goes together with a sink in many models; which causes which is not shown here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, total
from ..residual import ABOVE_MEDIAN, LARGE

MASSIVE = "Sun et al., Massive Activations in Large Language Models"


@probe(
    needs={"residual_norm"},
    title="Residual norm",
    formula="mean_t ||h_t||",
    unit="norm",
    bounds=(0, None),
    higher="the layer leaves a large state; the token-by-token list shows where",
    caveat="grows with depth in pre-norm models, and the next layer's norm divides it out again",
    source="Gu et al., When Attention Sink Emerges in Language Models, section 3 (norms of hidden states)",
)
def residual_norm(stats: AttentionStats) -> Tensor:
    """Mean norm of the hidden states that the layer leaves.

    >>> from headatlas.probes.worked import stream_of
    >>> residual_norm.measure(stream_of([[3, 4], [0, 1]], residual_norm.needs)).values.item()
    3.0
    """
    return stats["residual_norm"]


@probe(
    needs={"residual_norm"},
    parts=("mean", "max"),
    title="Residual-state peak",
    formula="||h_1|| / mean of ||h_t|| over t > 1; the same over their largest",
    unit="ratio",
    bounds=(0, None),
    higher="the first token's state stands above all others, as where it is an attention sink",
    caveat="the first token alone: a peak at a later token lowers it; the part `max` below 1 says that there is one",
    source="Guo et al., Active-Dormant Attention Heads, section 2 (residual-state peaks); Gu et al., section 3",
    per="example",
)
def residual_peak(stats: AttentionStats) -> Tensor:
    """Norm of the first token's hidden state over the mean, and over the largest, of the others.

    >>> from headatlas.probes.worked import stream_of
    >>> residual_peak.measure(stream_of([[6, 8], [2, 0], [0, 3]], residual_peak.needs)).values[0, 0].tolist()
    [4.0, 3.3333332538604736]
    """
    norm, first = stats["residual_norm"], position_of(stats) == 0
    real = torch.ones_like(first) if stats.real_queries is None else stats.real_queries[:, None]
    others, first = real & ~first, real & first
    mean = total(norm, others) / others.sum(-1).clamp(min=1)
    largest = norm.masked_fill(~others, 0.0).amax(-1)
    below = torch.stack([mean, largest], dim=-1)
    return torch.where(below > 0, total(norm, first)[..., None] / below, torch.nan)


@probe(
    needs={"residual_massive"},
    title="Massive activations",
    formula=f"number of (t, d) with |h_td| > {LARGE:.0f} and |h_td| > {ABOVE_MEDIAN:.0f} median_d |h_td|",
    unit="activations",
    bounds=(0, None),
    higher="single dimensions of single tokens carry constants far above everything else",
    caveat="the authors call the criterion loose; the size of 100 is that of models with billions of parameters",
    source=f"{MASSIVE}, section 2",
    together="sum",
)
def massive_activations(stats: AttentionStats) -> Tensor:
    """Number of massive activations among all hidden states of the prompt.

    >>> from headatlas.probes.worked import stream_of
    >>> states = [[2000.0, 0.1, 0.1, -0.1], [0.1, 0.2, 0.1, 0.1], [50.0, 0.01, 0.01, 0.01]]  # the last one is too small
    >>> massive_activations.measure(stream_of(states, massive_activations.needs)).values.item()
    1.0
    """
    return stats["residual_massive"].to(torch.float32)


@probe(
    needs={"residual_max", "residual_median"},
    parts=("size", "over median"),
    title="Largest activation",
    formula="max_t max_d |h_td|, and max_t of max_d |h_td| / median_d |h_td|",
    unit="activation; ratio",
    bounds=(0, None),
    higher="one dimension of one token stands above the others: the size and the ratio of the criterion apart",
    caveat="the two may be of different tokens; a token whose states are 0 has no ratio",
    source=f"{MASSIVE}, section 2 (top activation and median by layer)",
    together="max",
)
def largest_activation(stats: AttentionStats) -> Tensor:
    """The largest activation of any token, and the largest ratio of a token's largest to its median size.

    >>> from headatlas.probes.worked import stream_of
    >>> states = [[8.0, 4.0, 2.0], [0.5, 6.0, 0.5]]
    >>> largest_activation.measure(stream_of(states, largest_activation.needs)).values[0, 0].tolist()
    [8.0, 12.0]
    """
    largest, median = stats["residual_max"], stats["residual_median"]
    return torch.stack([largest, torch.where(median > 0, largest / median, torch.nan)], dim=-1)
