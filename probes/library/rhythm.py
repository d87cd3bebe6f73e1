"""Rhythm of attention: how far heads look back token by token, and which tokens later ones come back to.

Source: "Attention Illuminates LLM Reasoning" (WAAD and FAI), section 2. Both are per head here; the paper averages them
over the 30 % of heads with the least (WAAD) and the most (FAI) mean distance, which are sets of the run and not of one
head: both are linear, so the average over a set is that of these values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, watchers

SOURCE = "Attention Illuminates LLM Reasoning: The Preplan-and-Anchor Rhythm"
WIDTH = 10
HORIZON = (10, 100)


@probe(
    needs={f"clipped_distance:{WIDTH}"},
    title="Windowed average distance",
    formula=f"WAAD: mean_i sum_j p_ij min(i - j, {WIDTH})",
    unit="tokens",
    bounds=(0, WIDTH),
    higher="tokens look further back than their phrase; peaks token by token mark where a new phrase is planned",
    caveat="a first-token sink counts as the full width; the paper reads the average over local heads",
    source=f"{SOURCE}, section 2.2",
    causal_only=True,
)
def windowed_distance(stats: AttentionStats) -> Tensor:
    """Mean distance between a query and the keys it reads, cut off at 10 tokens.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.zeros(40, 40)
    >>> weights[:, 0] = 1.0  # distances 0, 1, ..., 9, then 10
    >>> windowed_distance.measure(stats_of(weights, windowed_distance.needs)).values.item()
    8.625
    """
    return stats[f"clipped_distance:{WIDTH}"]


@probe(
    needs={f"future_average:{HORIZON[0]}:{HORIZON[1]}"},
    title="Future attention",
    formula=f"FAI: mean over keys s of mean p_ts over queries t with {HORIZON[0]} <= t - s <= {HORIZON[1]}",
    unit="mass",
    bounds=(0, 1),
    higher="later tokens come back to earlier ones; peaks token by token are the anchors",
    caveat="about 1 / context by chance; undefined for keys no query of the horizon sees; a first-token sink peaks",
    source=f"{SOURCE}, section 2.3 (horizon of the RL runs)",
    per="key",
    causal_only=True,
)
def future_attention(stats: AttentionStats) -> Tensor:
    """Mean attention a token receives from the queries 10 to 100 tokens later.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights = torch.eye(20)
    >>> weights[15:] = 0.0
    >>> weights[15:, 2] = 1.0  # queries 12 to 19 are 10 or more behind key 2, and 15 to 19 read it
    >>> future_attention.measure(stats_of(weights, future_attention.needs)).values.item()  # 5/8, one of 10 keys
    0.0625
    """
    reach = (watchers(stats) > HORIZON[0]) & (position_of(stats) >= 0)
    if stats.call.window is not None and stats.call.window <= HORIZON[0]:
        reach = torch.zeros_like(reach)
    return torch.where(reach, stats[f"future_average:{HORIZON[0]}:{HORIZON[1]}"], torch.nan)
