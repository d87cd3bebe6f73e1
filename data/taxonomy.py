"""Heads in groups by their readings, and how far the groups repeat.

Heads are points (`head_features.py`), grouped by Ward's agglomeration or k-means; the number of groups is the one with
the largest mean silhouette. A group is named by the readings in which it stands out, one of a family: its mean in
deviations over heads (z).

Stability is the adjusted Rand index (Hubert and Arabie, Comparing Partitions; 1 the same groups, 0 what chance gives)
between the groups of two resamples of the prompts. The two are drawn from different halves of the clusters of examples:
two bootstraps of the same clusters share their noise, and heads that differ by nothing else would look stable. The null
is the same with every reading shuffled over heads, on its own and alike in both halves: readings as reliable as these
that do not belong together. Few groups are stable in it too, so the silhouette is set beside that of shuffled readings
as well, their number of groups found in the same way. Groups that pass neither cut a cloud into pieces.

Not covered: other prompts than these, other probes, another number of groups (it is kept in the resamples), and
readings of weights, which no resample of prompts moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .errors import UserError
from .head_features import HeadFeatures, head_features
from .heads import head_name
from .intervals import LEVEL, MIN_CLUSTERS
from .run import Run

METHODS = ("agglomerative", "kmeans")
LARGEST = 12
"""Most groups that `auto` tries."""
DRAWS = 100
STANDS_OUT = 0.5
"""Deviations from the mean of all heads below which a reading names no group."""


@dataclass(frozen=True)
class Spread:
    """The mean of a statistic over `n` draws, and the middle 95 % of the draws."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Taxonomy:
    """Groups of heads: who is where, what each group is, and how far that repeats."""

    heads: pd.DataFrame
    """layer, head, name (L5H1), cluster (from 1, the largest first), silhouette."""
    clusters: pd.DataFrame
    """cluster, name, size, members, readings (those in which it stands out, with z)."""
    silhouette: float
    null_silhouette: Spread
    """Of shuffled readings, grouped in the same way."""
    stability: Spread
    """Adjusted Rand index between the halves; NaN where the prompts have fewer than 5 clusters."""
    null: Spread
    """The same of shuffled readings."""
    features: HeadFeatures
    method: str

    @property
    def verdict(self) -> str:
        """What the stability says, in words."""
        if np.isnan(self.stability.mean):
            return f"stability unknown: expected {MIN_CLUSTERS} clusters of examples or more in every run with prompts"
        if self.stability.low <= 0:
            return "not stable: two halves of the prompts do not agree on the groups"
        more, apart = self.stability.mean > self.null.high, self.silhouette > self.null_silhouette.high
        if not more and not apart:
            return "the groups cut a cloud into pieces: shuffled readings are as stable and as far apart"
        said = (["more stable"] if more else []) + (["further apart"] if apart else [])
        return f"{' and '.join(said)} than shuffled readings"


def taxonomy(
    runs: Run | Sequence[Run],
    *,
    clusters: int | str = "auto",
    method: str = "agglomerative",
    stratum: str | None = None,
    tower: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Taxonomy:
    """Group the heads of a model by the readings of one run or several; `clusters` is a number or `auto`."""
    if method not in METHODS:
        raise UserError(f"expected a method of {', '.join(METHODS)}; came {method!r}")
    held = head_features([runs] if isinstance(runs, Run) else list(runs), stratum=stratum, tower=tower)
    plain = held.matrix(held.whole)
    points = plain * held.weights
    count = _number(clusters, points, method, seed)
    labels = _by_size(grouped(points, count, method, seed))
    generator = np.random.default_rng(seed)
    real, null = _stability(held, count, method, draws, generator)
    return Taxonomy(
        _heads_table(held, points, labels),
        _clusters_table(held, plain, labels),
        silhouette_of(points, labels),
        _spread([_null_silhouette(plain, held.weights, clusters, method, generator) for _ in range(draws)]),
        _spread(real),
        _spread(null),
        held,
        method,
    )


def grouped(points: np.ndarray, count: int, method: str = "agglomerative", seed: int = 0) -> np.ndarray:
    """The group of each point, int [head], of points [head, feature]."""
    from sklearn.cluster import AgglomerativeClustering, KMeans

    if method == "kmeans":
        starts = KMeans(count, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
        return starts.fit_predict(points)
    return AgglomerativeClustering(count, linkage="ward").fit_predict(points)


def silhouette_of(points: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette of a grouping; NaN where a silhouette is not defined."""
    from sklearn.metrics import silhouette_score

    if not 2 <= len(set(labels.tolist())) < len(points):
        return float("nan")
    return float(silhouette_score(points, labels))


def _number(clusters: int | str, points: np.ndarray, method: str, seed: int) -> int:
    """The number of groups: as asked, or the one of the largest silhouette."""
    different = len(np.unique(points, axis=0))
    if different < 3:
        raise UserError(f"expected 3 different heads or more to group; the readings tell {different} apart")
    if clusters != "auto":
        count = int(clusters)
        if not 2 <= count < different:
            raise UserError(f"expected 2 to {different - 1} clusters for {different} different heads; came {count}")
        return count
    tried = range(2, min(LARGEST, different - 1) + 1)
    return max(tried, key=lambda count: silhouette_of(points, grouped(points, count, method, seed)))


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Groups numbered from 1, the largest first, ties by their first head."""
    order = sorted(set(labels.tolist()), key=lambda one: (-int((labels == one).sum()), int((labels == one).argmax())))
    return np.array([order.index(one) + 1 for one in labels.tolist()])


def _stability(
    held: HeadFeatures, count: int, method: str, draws: int, generator: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Adjusted Rand indices between halves of the prompts, as they are and with shuffled readings."""
    from sklearn.metrics import adjusted_rand_score

    prompted = [number for number in held.clusters if number > 1]
    if not prompted or min(prompted) < MIN_CLUSTERS:
        return [], []
    real, null = [], []
    for _ in range(draws):
        pair = [held.matrix(picks) for picks in _halves(held.clusters, generator)]
        orders = [generator.permutation(len(held.places)) for _ in held.features]
        mixed = [np.stack([one[order, k] for k, order in enumerate(orders)], axis=1) for one in pair]
        for found, matrices in ((real, pair), (null, mixed)):
            one, other = (grouped(matrix * held.weights, count, method) for matrix in matrices)
            found.append(float(adjusted_rand_score(one, other)))
    return real, null


def _halves(clusters: Sequence[int], generator: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """How often each cluster of each run is drawn in two bootstraps of different halves; a run of one is in both."""
    first, second = [], []
    for count in clusters:
        if count == 1:
            first.append(np.ones(1))
            second.append(np.ones(1))
            continue
        order = generator.permutation(count)
        for picks, half in ((first, order[: count // 2]), (second, order[count // 2 :])):
            picks.append(np.bincount(generator.choice(half, size=len(half)), minlength=count).astype(float))
    return first, second


def _null_silhouette(
    plain: np.ndarray, weights: np.ndarray, clusters: int | str, method: str, generator: np.random.Generator
) -> float:
    mixed = np.stack([generator.permutation(column) for column in plain.T], axis=1) * weights
    count = _number(clusters, mixed, method, 0)
    return silhouette_of(mixed, grouped(mixed, count, method))


def _spread(found: list[float]) -> Spread:
    known = np.array([one for one in found if not np.isnan(one)])
    if not len(known):
        return Spread(float("nan"), float("nan"), float("nan"), 0)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Spread(float(known.mean()), float(low), float(high), len(known))


def _heads_table(held: HeadFeatures, points: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    from sklearn.metrics import silhouette_samples

    layers, heads = zip(*held.places, strict=True)
    names = [head_name(*place) for place in held.places]
    own = silhouette_samples(points, labels)
    return pd.DataFrame({"layer": layers, "head": heads, "name": names, "cluster": labels, "silhouette": own})


def _clusters_table(held: HeadFeatures, plain: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Each group with its name, its members and the readings in which it stands out."""
    rows = []
    for number in range(1, int(labels.max()) + 1):
        inside = labels == number
        telling = standing_out(held, plain[inside].mean(0))
        named = [f"{'high' if z > 0 else 'low'} {name}" for name, z in telling[:2]]
        rows.append(
            {
                "cluster": number,
                "name": ", ".join(named) or "nothing stands out",
                "size": int(inside.sum()),
                "members": [head_name(*place) for place, here in zip(held.places, inside, strict=True) if here],
                "readings": telling,
            }
        )
    return pd.DataFrame(rows)


def standing_out(held: HeadFeatures, z: np.ndarray, top: int = 4) -> list[tuple[str, float]]:
    """The readings furthest from the mean of all heads, one of each family, the furthest first."""
    found: dict[str, tuple[str, float]] = {}
    for index in np.argsort(-np.abs(z), kind="stable"):
        if abs(z[index]) >= STANDS_OUT:
            found.setdefault(held.features[index].family, (held.features[index].name, round(float(z[index]), 2)))
    return list(found.values())[:top]
