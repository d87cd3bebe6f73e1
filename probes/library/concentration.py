"""How many keys a head really uses: the participation ratio of its weights."""

from __future__ import annotations

from torch import Tensor

from ...kernels.stats import AttentionStats
from ..probe import probe


@probe(
    needs={"sum_squares", "row_mass"},
    title="Effective keys",
    formula="mean_i (sum_j p_ij)^2 / sum_j p_ij^2",
    unit="keys",
    bounds=(1, None),
    higher="attention is shared by many keys",
    caveat="a mean over queries: one broad query among sharp ones raises it; grows with length",
    source="inverse participation ratio (Renyi-2 diversity) of the attention weights",
)
def effective_keys(stats: AttentionStats) -> Tensor:
    """Mean number of keys that share the attention as if equally.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.5, 0.5]], effective_keys.needs)
    >>> effective_keys.measure(stats).values.item()  # (1 + 2) / 2
    1.5
    """
    return stats["row_mass"].square() / stats["sum_squares"]
