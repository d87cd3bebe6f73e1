"""Inactive heads: heads that write little, whatever they read. The paper's twelve scores, six and each by its layer.

AWFT is `first_token_mass`, AEQD `entropy`, AVVN and FTVVN `value_norm`, AHON `output_norm`, LTHON `last_output_norm`.

Source: Sandoval-Segura et al., "Identifying and Evaluating Inactive Heads in Pretrained LLMs": scores of the output's
norm find heads that scores of the first token miss. Whether a head may go is a question for an ablation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import position_of, probe, total

SOURCE = "Sandoval-Segura et al., Identifying and Evaluating Inactive Heads in Pretrained LLMs"


@probe(
    needs={"output_norm"},
    title="Output norm",
    formula="mean_i ||o_i||, o_i = sum_j p_ij v_j",
    unit="norm",
    bounds=(0, None),
    higher="the head writes much, before its output projection",
    caveat="o_proj may shrink or grow it; compare heads of one layer, not of different layers",
    source=f"{SOURCE}, section 3 (average head output norm)",
)
def output_norm(stats: AttentionStats) -> Tensor:
    """Mean norm of the head's output.

    >>> from headatlas.probes.worked import stats_of
    >>> output_norm.measure(stats_of([[1, 0], [0, 1]], output_norm.needs, values=[[3, 4], [0, 1]])).values.item()
    3.0
    """
    return stats["output_norm"]


@probe(
    needs={"output_norm"},
    title="Last output norm",
    formula="||o_n|| of the last token n, o_n = sum_j p_nj v_j",
    unit="norm",
    bounds=(0, None),
    higher="the head writes much where the next token is said",
    caveat="one token of each prompt; o_proj may shrink or grow it",
    source=f"{SOURCE}, section 3 (last token head output norm)",
    per="example",
    first_queries=1,
)
def last_output_norm(stats: AttentionStats) -> Tensor:
    """Norm of the head's output at the last token.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0, 1]], last_output_norm.needs, values=[[0, 1], [3, 4]])
    >>> last_output_norm.measure(stats).values.item()
    5.0
    """
    return _at_last(stats, stats["output_norm"])


@probe(
    needs={"value_norm"},
    parts=("mean", "first"),
    title="Value norm",
    formula="mean_j ||v_j||, and ||v_1|| of the first token",
    unit="norm",
    bounds=(0, None),
    higher="there is much to be read: a head of small values writes little wherever it looks",
    caveat="heads that share keys and values read alike; says nothing of what is attended",
    source=f"{SOURCE}, section 3 (average value vector norm; first token value vector norm)",
    per="example",
)
def value_norm(stats: AttentionStats) -> Tensor:
    """Mean norm of the value vectors, and the norm of the first token's.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0, 1]], value_norm.needs, values=[[0, 1], [3, 4]])
    >>> value_norm.measure(stats).values[0, 0].tolist()
    [3.0, 1.0]
    """
    norm = stats["value_norm"]
    return torch.stack([_mean(stats, norm), _at_first(stats, norm)], dim=-1)


SCORES = ("first token", "entropy", "value", "first value", "output", "last output")


@probe(
    needs={"weight_at:first", "entropy", "value_norm", "output_norm"},
    parts=SCORES,
    title="Inactivity scores",
    formula="score of the head / mean of the score over the heads of its layer",
    unit="ratio",
    bounds=(0, None),
    higher="first token: a sink, so inactive; of the others low values say inactive, below 0.1 all but silent",
    caveat="relative to its layer, so one loud head makes the others look silent; undefined with a single head",
    source=f"{SOURCE}, section 3: the six scores by layer (AWFT, AEQD, AVVN, FTVVN, AHON, LTHON, each LN)",
    per="example",
)
def inactivity(stats: AttentionStats) -> Tensor:
    """Six scores of how little a head does, each over the mean of the heads of its layer.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> weights, values = torch.eye(2).expand(1, 2, 2, 2), torch.tensor([[[3.0], [3.0]], [[1.0], [1.0]]])
    >>> scores = inactivity.measure(stats_of(weights, inactivity.needs, values=values)).values[0]
    >>> scores[:, 0].tolist(), scores[:, 4].tolist()  # both heads read the first token alike; one writes thrice as much
    ([1.0, 1.0], [1.5, 0.5])
    """
    first, value, output = stats["weight_at:first"], stats["value_norm"], stats["output_norm"]
    scores = (
        _mean(stats, first), _mean(stats, stats["entropy"]), _mean(stats, value), _at_first(stats, value),
        _mean(stats, output), _at_last(stats, output),
    )  # fmt: skip
    score = torch.stack(scores, dim=-1)
    layer = score.mean(1, keepdim=True)
    return (score / layer).masked_fill((layer <= 0) | (score.shape[1] < 2), torch.nan)


def _real(stats: AttentionStats) -> Tensor:
    """bool [batch, head, query], True for real tokens that see any key."""
    seeing = stats["visible_keys"] > 0
    return seeing if stats.real_queries is None else seeing & stats.real_queries[:, None]


def _mean(stats: AttentionStats, values: Tensor) -> Tensor:
    """[batch, head], the mean over real tokens."""
    real = _real(stats)
    return total(values, real) / real.sum(-1).clamp(min=1)


def _at_first(stats: AttentionStats, values: Tensor) -> Tensor:
    """[batch, head], the value at the first real token."""
    return total(values, _real(stats) & (position_of(stats) == 0))


def _at_last(stats: AttentionStats, values: Tensor) -> Tensor:
    """[batch, head], the value at the last real token."""
    place = position_of(stats)
    return total(values, _real(stats) & (place == place.amax(-1, keepdim=True)))
