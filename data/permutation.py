"""Whether a paired difference could be chance: a sign-flip permutation test over clusters, and its q over heads.

Under the null hypothesis a cluster's difference is as likely to have the other sign, so the mean difference is compared
with what random signs, one per cluster, make of the same numbers (Fisher, "The Design of Experiments", 1935, section
21; with clusters kept whole). Up to 13 clusters every one of the 2^n sign patterns is counted; beyond, 10,000 seeded
ones (40 a head where that is more, so that one head alone among all can reach q = 0.025) with p = (b + 1) / (m + 1)
(Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010). q is Benjamini and Hochberg's ("Controlling the
False Discovery Rate", 1995): of the heads with q below 0.05, about one in twenty is a false discovery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from .intervals import MIN_CLUSTERS, cluster_sums

EXACT = 13
"""Up to this many clusters every sign pattern is counted."""
FLIPS = 10_000
FLIPS_PER_HEAD = 40
TOGETHER = 4096
"""Sign patterns that are summed in one product, to bound memory."""


def sign_flip_p(differences: np.ndarray, clusters: Sequence[Any] | np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Two-sided p [head] of differences [example, head]; NaN is skipped, below 5 clusters with a value p is NaN.

    The statistic is |sum over clusters of s_c D_c|, D_c the sum of a cluster's differences and s_c its sign: the mean
    over examples but for a constant. Sums within a billionth of the one observed count as equal to it.
    """
    sums, counts = cluster_sums(np.asarray(differences, dtype=np.float64), clusters)
    observed = np.abs(sums.sum(axis=0))
    least = observed - 1e-9 * np.abs(sums).sum(axis=0)
    reached, patterns = np.zeros(sums.shape[1]), 0
    for signs in _signs(*sums.shape, seed=seed):
        reached += (np.abs(signs @ sums) >= least).sum(axis=0)
        patterns += len(signs)
    exact = len(sums) <= EXACT
    p = reached / patterns if exact else (reached + 1) / (patterns + 1)
    return np.where((counts > 0).sum(axis=0) >= MIN_CLUSTERS, p, np.nan)


def false_discovery_q(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg q [head] over the p that are defined; NaN stays NaN and is not counted as a test."""
    known = ~np.isnan(p)
    q = np.full(p.shape, np.nan)
    if known.any():
        from scipy.stats import false_discovery_control  # imported here, as in intervals.py

        q[known] = false_discovery_control(p[known], method="bh")
    return q


def _signs(clusters: int, heads: int, *, seed: int) -> Iterator[np.ndarray]:
    """Sign patterns [pattern, cluster] of -1 and 1: all there are, or as many seeded ones as `heads` call for."""
    if clusters <= EXACT:
        yield np.array(list(product((1.0, -1.0), repeat=clusters)))
        return
    generator, left = np.random.default_rng(seed), max(FLIPS, FLIPS_PER_HEAD * heads)
    while left > 0:
        size = min(left, TOGETHER)
        yield generator.choice((1.0, -1.0), size=(size, clusters))
        left -= size
