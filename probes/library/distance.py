"""How far a head looks: mean distance and the mass of a near window.

Positions are array positions of the tokens; a first-token sink is the farthest key there is, so read both beside
`first_token_mass`. Sources in each probe.
"""

from __future__ import annotations

from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import probe

WIDTH = 16
"""Tokens of the near window, the query itself included."""


@probe(
    needs={"mean_distance"},
    title="Mean distance",
    formula="mean_i sum_j p_ij |i - j|",
    unit="tokens",
    bounds=(0, None),
    higher="the head reads far back",
    caveat="a first-token sink counts as far; grows with length: compare heads at one length only",
    source="head span d of Attention Illuminates LLM Reasoning (WAAD/FAI), section 2; mean attention distance of ViT",
)
def mean_distance(stats: AttentionStats) -> Tensor:
    """Mean distance between a query and the keys it reads, in tokens.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [1, 0, 0], [0.5, 0, 0.5]], mean_distance.needs)
    >>> round(mean_distance.measure(stats).values.item(), 4)  # (0 + 1 + 1) / 3
    0.6667
    """
    return stats["mean_distance"]


@probe(
    needs={f"window_mass:{WIDTH}"},
    title=f"Window mass ({WIDTH})",
    formula=f"mean_i sum_j p_ij over |i - j| < {WIDTH}",
    unit="mass",
    bounds=(0, 1),
    higher=f"the head lives on the last {WIDTH} tokens: a small cache would serve it",
    caveat=f"the first {WIDTH} queries see nothing else; the recall of a streaming cache also counts the sinks",
    source="Xiao et al., Efficient Streaming Language Models with Attention Sinks, section 3 (recent window)",
)
def window_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on the nearest 16 tokens.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.5, 0.5]], window_mass.needs)
    >>> window_mass.measure(stats).values.item()
    1.0
    """
    return stats[f"window_mass:{WIDTH}"]
