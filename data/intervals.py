"""Intervals of a mean over clustered examples, and how well an order of heads repeats.

Bootstrap: whole clusters are drawn with replacement, so examples that share a text or a needle stay together; the
interval is the percentile interval of the drawn means, at levels widened for few clusters (Hesterberg, "What Teachers
Should Know About the Bootstrap", 2015, expanded percentile interval). Wilson's interval (Wilson, "Probable Inference,
the Law of Succession, and Statistical Inference", 1927) is for values of 0 and 1, where a bootstrap of a constant has
no width; Newcombe's (method 10 of "Improved Confidence Intervals for the Difference Between Binomial Proportions Based
on Paired Data", 1998) for the difference of two such shares. None of them speaks of data from elsewhere: they cover the
prompts drawn here. Below 5 clusters there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import stdtrit

MIN_CLUSTERS = 5
"""Fewer clusters with a value than this, and the interval is NaN."""

LEVEL = 0.95
"""Coverage of every interval."""


def cluster_sums(values: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the values that are not NaN, each [cluster, head], from values [example, head]."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    known = ~np.isnan(values)
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    sums = np.add.reduceat(np.where(known, values, 0.0)[order], starts, axis=0)
    return sums, np.add.reduceat(known[order].astype(np.float64), starts, axis=0)


def bootstrap_mean(
    values: np.ndarray, clusters: Sequence[Any] | np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends [head] of the interval of the mean over examples of values [example, head]; NaN is skipped."""
    values = _checked(values, clusters)
    if not values.size:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    sums, counts = cluster_sums(values, clusters)
    n = (counts > 0).sum(axis=0)
    picks = drawn_clusters(len(sums), draws, seed)
    alike = bool((counts == counts[:, :1]).all())  # no head lacks an example: one column says how many were drawn
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (picks @ sums) / (picks @ (counts[:, :1] if alike else counts))
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    for size in np.unique(n[n >= MIN_CLUSTERS]):
        heads = n == size
        tail = expanded_tail(int(size))
        here = means[:, heads]
        quantile = np.nanquantile if np.isnan(here).any() else np.quantile  # the latter takes all heads at once
        low[heads], high[heads] = quantile(here, [tail, 1 - tail], axis=0)
    return low, high


@lru_cache(maxsize=4)
def drawn_clusters(clusters: int, draws: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn, float [draw, cluster]: whole data sets drawn with replacement."""
    picks = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    return picks.astype(np.float64)


def wilson(successes: np.ndarray | float, n: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends of Wilson's interval for `successes` out of `n`; NaN where n is below 5."""
    hits, trials = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(n, dtype=float))
    if ((hits < 0) | (hits > trials)).any():
        raise ValueError("expected 0 <= successes <= n in every place")
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    trials = np.where(trials >= MIN_CLUSTERS, trials, np.nan)
    share = hits / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.where(hits == 0, 0 * half, centre - half), np.where(hits == trials, 1 + 0 * half, centre + half)


def newcombe(
    first: np.ndarray, second: np.ndarray, clusters: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends [head] of the interval of the mean of `first - second`, both 0, 1 or NaN [example, head].

    With Wilson's (l, u) of each share over n clusters, where both have a value: low = d - sqrt((p1 - l1)^2 - 2 phi (p1
    - l1) (u2 - p2) + (u2 - p2)^2), high with the other ends. phi is the correlation of the two over clusters, its
    covariance moved towards 0 by 1 / 2n where it is above 0.
    """
    known = ~(np.isnan(first) | np.isnan(second))
    (sums1, counts), (sums2, _) = (cluster_sums(np.where(known, one, np.nan), clusters) for one in (first, second))
    n, examples = (counts > 0).sum(axis=0), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share1, share2 = sums1.sum(axis=0) / examples, sums2.sum(axis=0) / examples
        phi = _phi(sums1 / counts, sums2 / counts, n)
    share1, share2 = (np.where(n > 0, share, 0.0) for share in (share1, share2))
    (low1, high1), (low2, high2) = wilson(share1 * n, n), wilson(share2 * n, n)

    def half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a**2 - 2 * phi * a * b + b**2, 0.0))

    difference = share1 - share2
    return difference - half(share1 - low1, high2 - share2), difference + half(high1 - share1, share2 - low2)


def _phi(first: np.ndarray, second: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Newcombe's correlation [head] of two values per cluster [cluster, head]; 0 where one of them is constant."""
    from_first, from_second = (one - np.nansum(one, axis=0) / n for one in (first, second))
    covariance = np.nansum(from_first * from_second, axis=0) / n
    scale = np.sqrt(np.nansum(from_first**2, axis=0) * np.nansum(from_second**2, axis=0)) / n
    corrected = np.where(covariance > 0, np.maximum(covariance - 0.5 / n, 0.0), covariance)
    return np.where(scale > 1e-12, corrected / np.where(scale > 1e-12, scale, 1.0), 0.0)


def split_half_reliability(
    values: np.ndarray, clusters: Sequence[Any] | np.ndarray, splits: int = 20, seed: int = 0
) -> float:
    """How well the order of heads repeats: Spearman between two random halves of the clusters, in -1..1.

    The mean over `splits` random halvings, corrected to the full number of clusters by Spearman-Brown, 2r / (1 + |r|).
    NaN below 5 clusters, below 3 heads, or where all heads are equal.
    """
    values = _checked(values, clusters)
    if values.shape[1] < 3 or not len(values):
        return math.nan
    sums, counts = cluster_sums(values, clusters)
    generator = np.random.default_rng(seed)
    if len(sums) < MIN_CLUSTERS:
        return math.nan
    first = np.stack([generator.permutation(len(sums)) < len(sums) // 2 for _ in range(splits)]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        halves = [(chosen @ sums) / (chosen @ counts) for chosen in (first, 1 - first)]
    found = spearman_of_rows(*halves)
    found = found[~np.isnan(found)]
    return float(2 * found.mean() / (1 + abs(found.mean()))) if len(found) else math.nan


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two vectors, ties at their mean rank; NaN pairs are left out; NaN for a constant."""
    from scipy.stats import rankdata  # imported here: half a second that few callers need

    known = ~(np.isnan(a) | np.isnan(b))
    x, y = rankdata(a[known]), rankdata(b[known])
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def spearman_of_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman of each row of two [row, head] arrays; NaN pairs are left out; NaN for a constant."""
    from scipy.stats import rankdata

    if (np.isnan(a) | np.isnan(b)).any():
        return np.array([spearman(*rows) for rows in zip(a, b, strict=True)])
    x, y = (rankdata(values, axis=1) for values in (a, b))
    x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))


@lru_cache
def expanded_tail(clusters: int) -> float:
    """The tail at which a percentile interval over this many clusters is read: below 2.5 %, and nearing it."""
    t = float(stdtrit(clusters - 1, 0.5 + LEVEL / 2))
    return NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * t)


def _checked(values: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(clusters):
        raise ValueError(
            f"expected values [example, head] and a cluster per example; came {values.shape} and {len(clusters)}"
        )
    return values
