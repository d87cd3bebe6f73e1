"""Heads as points: every reading of one or more runs of a model as a feature, with what is needed to draw it again.

A feature is one probe and part on one stratum of one run. It is standardised over heads, and weighted so that the
features of one family together count as much as those of another: ten spellings of the sink are one voice. Where a
head has no value the median over heads stands in, and the table says how often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import UserError, near_miss
from .intervals import cluster_sums
from .run import Run
from .summary import grids, strata_of

Place = tuple[int, int]


@dataclass(frozen=True)
class Feature:
    """One reading of every head, as sums over clusters of examples."""

    name: str
    """The probe, with `/part` where it has several, and `run:` before it where there are several runs."""
    family: str
    source: int
    """Which run it is of: clusters of one run are drawn together."""
    sums: np.ndarray  # [cluster, head]
    counts: np.ndarray  # [cluster, head]

    def means(self, picks: np.ndarray) -> np.ndarray:
        """The mean over the examples of the clusters drawn, [head]; NaN where a head has none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (picks @ self.sums) / (picks @ self.counts)


@dataclass(frozen=True)
class HeadFeatures:
    """The features of the heads of one model."""

    places: list[Place]
    features: list[Feature]
    clusters: list[int]
    """Clusters of examples of each run; 1 for a run without prompts."""
    imputed: dict[str, int]
    """Feature -> heads without a value, for which the median stands in."""
    dropped: dict[str, str]
    """Feature -> why it is not used."""
    strata: list[str]
    """The stratum of each run."""

    def matrix(self, picks: Sequence[np.ndarray]) -> np.ndarray:
        """[head, feature], standardised but not weighted, of the clusters drawn from each run."""
        return standardised(np.stack([one.means(picks[one.source]) for one in self.features], axis=1))

    @property
    def weights(self) -> np.ndarray:
        """One over the root of the family's size, [feature]: every family has the same say in a squared distance."""
        families = [one.family for one in self.features]
        return np.array([families.count(family) ** -0.5 for family in families])

    @property
    def whole(self) -> list[np.ndarray]:
        """Every cluster once."""
        return [np.ones(count) for count in self.clusters]


def standardised(values: np.ndarray) -> np.ndarray:
    """Values [head, feature] with mean 0 and deviation 1 over heads; the median where undefined, 0 for a constant.

    >>> standardised(np.array([[1.0], [3.0], [np.nan]]))[:, 0].round(3).tolist()
    [-1.225, 1.225, 0.0]
    """
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    for column in np.flatnonzero(~known.all(0) & known.any(0)):
        filled[~known[:, column], column] = np.median(values[known[:, column], column])
    centred = filled - filled.mean(0)
    scale = filled.std(0)
    return centred / np.where(scale > 1e-9 * np.maximum(1, np.abs(filled).max(0)), scale, np.inf)


def head_features(runs: Sequence[Run], *, stratum: str | None = None, tower: str | None = None) -> HeadFeatures:
    """The features of all readings of `runs`, which must be of one model; `stratum` is the fullest unless named."""
    digests = {run.header["model"]["digest"] for run in runs}
    if len(digests) != 1:
        raise UserError(f"expected runs of one model; came {', '.join(run.header['model']['name'] for run in runs)}")
    found: list[tuple[Feature, list[Place]]] = []
    clusters, strata = [], []
    for number, run in enumerate(runs):
        title = f"{run.header['data']['name']}:" if len(runs) > 1 else ""
        name, members = _stratum(run, stratum)
        strata.append(name)
        made = list(_of_run(run, members, tower, number, title))
        clusters.append(max((len(one.sums) for one, _ in made), default=1))
        found += made
    return _together(found, clusters, strata)


def _stratum(run: Run, wanted: str | None) -> tuple[str, np.ndarray]:
    """The stratum that is asked for, else the length with most examples, and its examples."""
    examples = run.examples().set_index("example")
    strata = dict(strata_of(examples, run.header["data"].get("strata") or ()))
    if wanted is not None and wanted not in strata:
        raise UserError(
            f"run {run.id} has no stratum {wanted!r}.{near_miss(wanted, strata)} It has {', '.join(list(strata)[:8])}"
        )
    name = wanted or max(strata, key=lambda one: len(strata[one]))
    return name, np.asarray(strata[name])


def _of_run(
    run: Run, members: np.ndarray, tower: str | None, number: int, title: str
) -> Iterator[tuple[Feature, list[Place]]]:
    """Every probe and part of one run, with the heads that it has values for."""
    examples = run.examples().set_index("example")
    inside = examples.index.get_indexer(list(members))
    for probe, card in run.header["probes"].items():
        rows = run.rows(probe).dropna(subset=["head"])
        if not len(rows):
            continue
        chosen = tower or str(rows["tower"].iloc[0])
        for part, its, places, values, _ in grids(rows, examples):
            if its == chosen:
                sums, counts = cluster_sums(values[inside], examples["cluster"].to_numpy()[inside])
                name = f"{title}{probe}/{part}" if part else f"{title}{probe}"
                feature = Feature(name, str(card.get("family") or probe), number, sums, counts)
                heads = list(zip(places["layer"].astype(int), places["head"].astype(int), strict=True))
                yield feature, heads


def _together(found: list[tuple[Feature, list[Place]]], clusters: list[int], strata: list[str]) -> HeadFeatures:
    """All features over the same heads, those that say nothing left out by name."""
    places = sorted({place for _, heads in found for place in heads})
    at = {place: index for index, place in enumerate(places)}
    features, imputed, dropped = [], {}, {}
    for one, heads in found:
        sums, counts = (np.zeros((len(one.sums), len(places))) for _ in range(2))
        columns = [at[place] for place in heads]
        sums[:, columns], counts[:, columns] = one.sums, one.counts
        feature = Feature(one.name, one.family, one.source, sums, counts)
        means = feature.means(np.ones(len(sums)))
        known = np.isfinite(means)
        if known.sum() < len(places) / 2:
            dropped[one.name] = f"undefined for {int((~known).sum())} of {len(places)} heads"
        elif not standardised(means[:, None]).any():
            dropped[one.name] = "the same for every head"
        else:
            features.append(feature)
            imputed |= {one.name: int((~known).sum())} if not known.all() else {}
    if not features:
        raise UserError("no reading differs between heads, so there is nothing to group them by; measure more probes")
    return HeadFeatures(places, features, clusters, imputed, dropped, strata)
