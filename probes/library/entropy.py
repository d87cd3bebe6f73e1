"""Attention entropy: how spread a head's weights are, and how close its logits are to collapse.

H_i = -sum_j p_ij ln p_ij. Source: Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy
Collapse" (sigmaReparam), sections 3.1 and 3.2. Collapse is a fall over training; one value shows no fall.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import probe

SOURCE = "Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse"


def _entropy_of_keys(stats: AttentionStats) -> Tensor:
    """Entropy of the weights renormalised over keys: H/m + ln m for a row of mass m (m < 1 beside a learned sink)."""
    mass = stats["row_mass"]
    return stats["entropy"] / mass + mass.log()


@probe(
    needs={"entropy"},
    title="Entropy",
    formula="mean_i H_i, H_i = -sum_j p_ij ln p_ij",
    unit="nats",
    bounds=(0, None),
    higher="attention is spread over many keys",
    caveat="grows with the visible keys: compare heads at one length only; row 1 is 0 and counts, as in the paper",
    source=f"{SOURCE}, section 3.1",
)
def entropy(stats: AttentionStats) -> Tensor:
    """Mean entropy of the attention weights, in nats.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.5, 0.5]], entropy.needs)
    >>> round(entropy.measure(stats).values.item(), 4)  # (0 + ln 2) / 2
    0.3466
    """
    return stats["entropy"]


@probe(
    needs={"entropy", "row_mass"},
    title="Normalized entropy",
    formula="mean_i H_i / ln n_i, n_i = visible keys, over queries with n_i > 1",
    unit="share of the maximum",
    bounds=(0, 1),
    higher="attention is near uniform over what the query can see",
    caveat="sinks reach 0 and unused heads 1; the first query (ln 1 = 0) is undefined and left out",
    source=f"{SOURCE}, section 3.1; n_i follows windows and padding",
)
def normalized_entropy(stats: AttentionStats) -> Tensor:
    """Mean entropy relative to the uniform distribution over the visible keys.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0]], normalized_entropy.needs)
    >>> round(normalized_entropy.measure(stats).values.item(), 4)  # row 1 left out: (1 + 0) / 2
    0.5
    """
    most = stats["visible_keys"].log()
    return torch.where(most > 0, _entropy_of_keys(stats) / most, torch.nan)


@probe(
    needs={"entropy", "row_mass", "logit_sum", "logit_sum_squares"},
    title="Entropy bound gap",
    formula=(
        "mean_i H_i - B(s_i, n_i), s_i^2 = sum_j (z_ij - mean z_i)^2, b = exp(-s sqrt(n/(n-1))), "
        "B = ln(1 + (n-1) b) + s sqrt(n (n-1)) b / (1 + (n-1) b)"
    ),
    unit="nats",
    bounds=(0, None),
    higher="the entropy is far above the least that logits of this spread allow",
    caveat="0 means the row has the most collapsed shape its logit spread allows, not that its entropy is 0",
    source=f"{SOURCE}, theorem 3.1, with the spread of each row's logits in place of the spectral norms",
)
def entropy_bound_gap(stats: AttentionStats) -> Tensor:
    """Mean distance of the entropy from its lower bound given the spread of the row's logits.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.9, 0.1]], entropy_bound_gap.needs)
    >>> abs(round(entropy_bound_gap.measure(stats).values.item(), 4))  # two visible keys meet the bound
    0.0
    """
    keys = stats["visible_keys"].to(stats["entropy"].dtype)
    variance = stats["logit_sum_squares"] - stats["logit_sum"].square() / keys
    spread = variance.clamp(min=0).sqrt()
    others = keys - 1
    decay = torch.exp(-spread * (keys / others).sqrt())
    total = 1 + others * decay
    bound = total.log() + spread * (keys * others).sqrt() * decay / total
    return torch.where(keys > 1, _entropy_of_keys(stats) - bound, torch.nan)
