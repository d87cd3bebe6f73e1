"""Inactive heads: heads that write little, whatever they read.

Source: Sandoval-Segura et al., "Identifying and Evaluating Inactive Heads in Pretrained LLMs": scores of the output's
norm find heads that scores of the first token miss. Whether a head may go is a question for an ablation.
"""

from __future__ import annotations

from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import probe, total

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
    title="Relative output norm",
    formula="mean_i ||o_i|| / (mean over the heads of the layer of mean_i ||o_i||)",
    unit="ratio",
    bounds=(0, None),
    higher="the head writes more than the others of its layer; below 0.1 it is all but silent",
    caveat="relative to its layer, so one loud head makes the others look silent; undefined with a single head",
    source=f"{SOURCE}, section 3 (layer-normalised average head output norm)",
    per="example",
)
def relative_output_norm(stats: AttentionStats) -> Tensor:
    """Mean norm of the head's output over that of the heads of its layer.

    >>> import torch
    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of(torch.ones(1, 2, 1, 1), relative_output_norm.needs, values=torch.tensor([[[3.0]], [[1.0]]]))
    >>> relative_output_norm.measure(stats).values[0].tolist()
    [[1.5], [0.5]]
    """
    norm, real = stats["output_norm"], (stats["visible_keys"] > 0)
    if stats.real_queries is not None:
        real = real & stats.real_queries[:, None]
    mean = total(norm, real) / real.sum(-1).clamp(min=1)
    layer = mean.mean(1, keepdim=True)
    return (mean / layer).masked_fill((layer <= 0) | (mean.shape[1] < 2), float("nan"))
