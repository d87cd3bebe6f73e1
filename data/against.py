"""A run against one of its baselines: per head the paired difference, how far the head stands out, and q.

    difference   mean over examples of x_e - b_e, x the run's value and b the baseline's at the same example, in the
                 unit of the probe; an example where either is undefined is left out of every column
    interval     95 % of the difference, over clusters of examples: bootstrap, or Newcombe's for values of 0 and 1
    n            clusters with a difference; below 5 of them interval and q are NaN
    effect       (mean of the head - mean over all heads of the baseline) / standard deviation over those heads, n - 1
                 below; same probe, part, tower and stratum. NaN below 5 heads with a value, and where the heads differ
                 by no more than float32 rounds (1e-6 of their mean)
    q            Benjamini-Hochberg over all heads of the stratum, from a sign-flip test of the paired difference; its
                 smallest p is 2 / 2^n, so with 5 clusters no q is below 0.0625

What it does not say: the baseline is one draw of random weights, and one order of each prompt, so the interval and q
speak of prompts and not of other draws. With enough prompts nearly every trained head differs from an untrained one,
and q says no more than that; `effect` says how that compares with what untrained heads differ by among themselves.
Against shuffled tokens, a head that does the same on them has difference 0 and may still have a large effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .baselines import KINDS
from .command import resume_command
from .errors import StoreError
from .intervals import bootstrap_mean, cluster_sums, newcombe
from .permutation import false_discovery_q, sign_flip_p
from .summary import grids, strata_of

if TYPE_CHECKING:
    from .run import Run

COLUMNS = [
    *("probe", "part", "tower", "layer", "head", "stratum"),
    *("mean", "baseline", "difference", "ci_low", "ci_high", "n", "effect", "q"),
]
"""Columns of `Run.against`, one row per probe, part, tower, head and stratum."""

MIN_HEADS = 5
"""Fewer heads of the baseline with a value than this, and there is no spread to measure an effect by."""
ROUNDING = 1e-6
"""A standard deviation below this share of the mean is float32 rounding, not a difference between heads."""


def compare_runs(
    run: Run, base: Run, kind: str, probe: str | None = None, *, part: str | None = None, stratum: str | None = None
) -> pd.DataFrame:
    """The rows of `COLUMNS` for one probe, or for all that both runs hold."""
    examples = run.examples().set_index("example")
    if examples["id"].tolist() != base.examples()["id"].tolist():
        raise StoreError(f"run {base.id} holds other prompts than {run.id}; expected the same ones, in the same order")
    strata = [one for one in strata_of(examples, run.header["data"].get("strata") or ()) if stratum in (None, one[0])]
    held = run.header["probes"]
    if probe is not None:
        _check_held(run, base, kind, probe)
    names = [name for name in held if name in base.header["probes"]] if probe is None else [probe]
    tables = []
    for name in names:
        binary = bool(held[name].get("binary"))
        for found, tower, places, values, other in _paired_grids(run, base, name, examples):
            if part in (None, found):
                tables += _tables(name, found, tower, places, values, other, examples, strata, binary=binary)
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS) if tables else pd.DataFrame(columns=COLUMNS)


def compare(
    values: np.ndarray, other: np.ndarray, clusters: np.ndarray, *, binary: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """The columns from `mean` to `q`, each [head], of values [example, head] and the baseline's at the same places."""
    paired = values - other
    known = ~np.isnan(paired)
    (sums, counts), (others, _) = (cluster_sums(np.where(known, one, np.nan), clusters) for one in (values, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, baseline = sums.sum(axis=0) / counts.sum(axis=0), others.sum(axis=0) / counts.sum(axis=0)
    low, high = newcombe(values, other, clusters) if binary else bootstrap_mean(paired, clusters, seed=seed)
    return {
        "mean": mean,
        "baseline": baseline,
        "difference": mean - baseline,
        "ci_low": low,
        "ci_high": high,
        "n": (counts > 0).sum(axis=0),
        "effect": effect_size(mean, baseline),
        "q": false_discovery_q(sign_flip_p(paired, clusters, seed=seed)),
    }


def effect_size(means: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """How many standard deviations of the baseline's heads each mean [head] lies from the mean of those heads.

    >>> effect_size(np.array([9.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])).round(4)
    array([3.7947, 0.6325])
    """
    heads = baseline[~np.isnan(baseline)]
    if len(heads) < MIN_HEADS or heads.std(ddof=1) <= ROUNDING * abs(heads.mean()):
        return np.full(len(means), np.nan)
    return (means - heads.mean()) / heads.std(ddof=1)


def _check_held(run: Run, base: Run, kind: str, probe: str) -> None:
    """Refuse a probe that the baseline does not hold, with why it was left out or how to measure it."""
    run.check_probe(probe)
    header = base.header
    if probe in header["probes"]:
        return
    reason = (header.get("skipped") or {}).get(probe)
    again = f"`{resume_command(run.header, run.path.parent, baselines=True)}` with this probe measures it"
    raise StoreError(f"{KINDS[kind]} of run {run.id} hold no {probe!r}: {reason or again}")


def _paired_grids(
    run: Run, base: Run, probe: str, examples: pd.DataFrame
) -> Iterator[tuple[str, str, pd.DataFrame, np.ndarray, np.ndarray]]:
    """Per part and tower: layer and head of each column, values [example, column] of the run, and the baseline's."""
    others = {(part, tower): (places, values) for part, tower, places, values, _ in grids(base.rows(probe), examples)}
    for part, tower, places, values, _ in grids(run.rows(probe), examples):
        if (part, tower) in others:
            there, found = others[part, tower]
            at = _index(there).get_indexer(_index(places))
            yield part, tower, places, values, np.where(at >= 0, found[:, at], np.nan)


def _index(places: pd.DataFrame) -> pd.MultiIndex:
    """Layer and head of each column, to be looked up; -1 stands for none."""
    return pd.MultiIndex.from_frame(places.astype("Int64").fillna(-1).astype("int64"))


def _tables(
    probe: str,
    part: str,
    tower: str,
    places: pd.DataFrame,
    values: np.ndarray,
    other: np.ndarray,
    examples: pd.DataFrame,
    strata: list[tuple[str, Any]],
    *,
    binary: bool,
) -> Iterator[pd.DataFrame]:
    """One table per stratum in which any example has a value in both runs."""
    clusters = examples["cluster"].to_numpy()
    both = np.any(~np.isnan(values - other), axis=1)
    for stratum, members in strata:
        inside = examples.index.get_indexer(members)
        inside = inside[both[inside]]
        if len(inside):
            columns = compare(values[inside], other[inside], clusters[inside], binary=binary)
            yield places.assign(probe=probe, part=part, tower=tower, stratum=stratum, **columns)
