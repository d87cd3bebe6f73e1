"""Intervals of the certificates: Wilson's for shares of prompts, a seeded bootstrap over rows for shares of tokens."""

from __future__ import annotations

import math

import numpy as np

NORMAL_95 = 1.959963984540054


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of hits/count (Wilson 1927); (0, 1) for no trials at all."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = hits / count, NORMAL_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def row_bootstrap(values: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` [row, token], resampling whole rows."""
    means = values.mean(axis=1)
    picked = np.random.default_rng(seed).integers(0, len(means), size=(draws, len(means)))
    low, high = np.percentile(means[picked].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
