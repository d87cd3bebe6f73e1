"""Whether two readings put the heads in the same order: rank correlation with interval, and the top heads of both.

A reading is written RUN:PROBE, RUN:PROBE/PART or RUN:PROBE/PART@STRATUM. The interval is that of the prompts: clusters
of examples are drawn with replacement, in both readings together where they stand on the same prompts, and Spearman's
correlation over heads is taken of each draw. Ranks of a draw are noisier than those of the data, which pulls it towards
0, so the interval is estimate -+ t times the root mean square of (draw - estimate), in Fisher's z: cautious, and never
without its estimate. Models must have the same heads; nothing says that a head means the same in two training seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from .errors import UserError, near_miss
from .heads import head_name
from .intervals import LEVEL, MIN_CLUSTERS, cluster_sums, drawn_clusters, spearman_of_rows
from .store import Store
from .summary import strata_of

TOP = 0.1
"""Share of the heads that is called the top, five at least."""
LARGEST = 1 - 1e-9
"""Fisher's z of 1 is infinite."""


@dataclass(frozen=True)
class Values:
    """One reading: values [example, head], the cluster of each example, the heads' places, its spelling and prompts."""

    values: np.ndarray
    clusters: np.ndarray
    places: list[tuple[int, int]]
    name: str
    prompts: tuple[str, str]
    """Run and stratum: equal for readings of the same prompts."""


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation over heads with its 95 % interval, and the overlap of the top heads."""

    rho: float
    low: float
    high: float
    heads: int
    clusters: tuple[int, int]
    top: int
    """Heads that count as the top of each reading."""
    shared: list[str]
    """Those of them that are in both, as L5H1, the first reading's highest first."""
    chance: float
    """How many would be in both by chance."""


def find_values(store: Store, text: str) -> Values:
    """The reading that `text` spells; what is not there is refused with what is."""
    ref, colon, rest = text.partition(":")
    if not colon or not rest:
        raise UserError(
            f"{text!r}: expected RUN:PROBE, RUN:PROBE/PART or RUN:PROBE/PART@STRATUM, such as latest:entropy"
        )
    which, _, stratum = rest.partition("@")
    probe, _, part = which.partition("/")
    run = store.run(ref, holding=probe)
    rows = run.rows(probe)
    first_tower = str(rows["tower"].iloc[0]) if len(rows) else ""
    rows = rows.loc[rows["tower"].astype(str) == first_tower, :]
    parts = list(dict.fromkeys(rows["part"].astype(str)))
    if not part and len(parts) > 1:
        raise UserError(f"{text!r}: probe {probe} has parts; name one of them: {', '.join(parts)}")
    if part and part not in parts:
        raise UserError(
            f"{text!r}: probe {probe} has no part {part!r}.{near_miss(part, parts)} It has {', '.join(parts)}"
        )
    examples = run.examples().set_index("example")
    strata = dict(strata_of(examples, run.header["data"].get("strata") or ()))
    if stratum and stratum not in strata:
        known = ", ".join(list(strata)[:8])
        raise UserError(
            f"{text!r}: run {run.id} has no stratum {stratum!r}.{near_miss(stratum, strata)} It has {known}"
        )
    members = strata[stratum] if stratum else examples.index
    rows = rows.dropna(subset=["head"])  # what is said of a whole layer has no place among heads
    rows = rows[(rows["part"].astype(str) == (part or parts[0])) & rows["example"].isin(list(members))]
    table = rows.pivot_table(index="example", columns=["layer", "head"], values="value", dropna=False)
    return Values(
        table.to_numpy(float),
        examples.loc[table.index, "cluster"].to_numpy(),
        [(int(layer), int(head)) for layer, head in table.columns],
        f"{run.id}:{rest}",
        (run.id, stratum),
    )


def agreement(first: Values, second: Values, *, draws: int = 2000, seed: int = 0) -> Agreement:
    """How far two readings agree on the order of the heads that both define."""
    places = [place for place in first.places if place in set(second.places)]
    if len(places) < 3:
        raise UserError(f"{first.name} and {second.name} have {len(places)} heads in common; expected 3 or more")
    one, two = (sums_of(values, places) for values in (first, second))
    means = [_means(sums, counts, np.ones((1, len(sums)))) for sums, counts in (one, two)]
    known = ~np.isnan(means[0][0]) & ~np.isnan(means[1][0])
    same = first.prompts == second.prompts and len(one[0]) == len(two[0])
    picks = [drawn_clusters(len(sums), draws, seed + (0 if same else at)) for at, (sums, _) in enumerate((one, two))]
    drawn = spearman_of_rows(*(_means(*sums, pick)[:, known] for sums, pick in zip((one, two), picks, strict=True)))
    clusters = (len(one[0]), len(two[0]))
    count = int(known.sum())
    top = min(count, max(5, round(TOP * count)))
    order = [np.argsort(-np.where(known, mean[0], -np.inf), kind="stable")[:top] for mean in means]
    shared = [head_name(*places[index]) for index in order[0] if index in set(order[1])]
    rho = float(spearman_of_rows(*(mean[:, known] for mean in means))[0])
    low, high = _interval(rho, drawn, min(clusters))
    return Agreement(rho, low, high, count, clusters, top, shared, top * top / max(1, count))


def sums_of(reading: Values, places: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts per cluster, [cluster, head], of these heads."""
    columns = [reading.places.index(place) for place in places]
    return cluster_sums(reading.values[:, columns], reading.clusters)


def _interval(rho: float, drawn: np.ndarray, clusters: int) -> tuple[float, float]:
    """95 % in Fisher's z around the estimate; NaN below 5 clusters."""
    if clusters < MIN_CLUSTERS:
        return np.nan, np.nan
    drawn = drawn[~np.isnan(drawn)]
    centre, draws = np.arctanh(np.clip(rho, -LARGEST, LARGEST)), np.arctanh(np.clip(drawn, -LARGEST, LARGEST))
    half = stdtrit(clusters - 1, 0.5 + LEVEL / 2) * np.sqrt(np.mean((draws - centre) ** 2))
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def _means(sums: np.ndarray, counts: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """[draw, head], means over the examples of the clusters drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (picks @ sums) / (picks @ counts)
