"""Head budget curves: how a score falls as more heads are edited, in the order of a reading and in random orders.

The area between the two is the reading's causal score: (mean random score - score in the reading's order), averaged
over the share of heads edited; for a loss the sign is turned round. 0: the reading says no more than chance which heads
matter, above 0: it finds them first, below 0: it puts them last. Intervals are over prompts; how far random orders lie
from each other says what a single order does by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.causal import LOWER_IS_BETTER, values_of
from ..data.intervals import bootstrap_mean, wilson
from ..data.run import Run
from .causal import every_head
from .edit_run import EditPlan, Means, carry_out
from .edits.edit import Edit
from .edits.sets import Head
from .plan import Plan
from .progress import Report

ORDERS = 10
"""Random orders by default."""


@dataclass(frozen=True)
class Budget:
    """Curves of some readings, and of random orders, over the same prompts."""

    scores: pd.DataFrame
    """reading, area, ci_low, ci_high, chance (share of random orders with a larger area), to_half, n; best first."""
    curves: pd.DataFrame
    """reading, heads, share, mean, ci_low, ci_high; random orders are `random 0` and on, their mean is `random`."""
    score: str
    run: Run


def sizes_of(count: int) -> list[int]:
    """How many heads are edited at each point of a curve: none, then doubling, then all.

    >>> sizes_of(48)
    [0, 1, 2, 4, 8, 16, 32, 48]
    """
    found, size = [0], 1
    while size < count:
        found.append(size)
        size *= 2
    return [*found, count]


def budget(
    plan: Plan,
    kind: Edit,
    orders: Mapping[str, Sequence[Head]],
    *,
    store: str | Path,
    score: str | None = None,
    random_orders: int = ORDERS,
    means_plan: Plan | None = None,
    report: Report | None = None,
) -> Budget:
    """Run every point of every curve once (a set of heads that several orders share is edited once)."""
    sizes, sets, places = points(plan, orders, random_orders)
    means = Means(means_plan or plan) if kind.kind_of.needs == "means" else None
    variants = [[kind.of(heads)] if heads else [] for heads in sets]
    made = EditPlan(plan, variants, means=means, said=f"budget curves: {kind.kind} of {len(sets)} sets of heads")
    run = carry_out(made, store, report=report)
    name = score or made.names[0]
    values = values_of(run, name) * (-1 if name in LOWER_IS_BETTER else 1)
    return _read(values, places, list(orders), sizes, run, name)


def points(
    plan: Plan, orders: Mapping[str, Sequence[Head]], random_orders: int = ORDERS
) -> tuple[list[int], list[tuple[Head, ...]], dict[str, list[int]]]:
    """(sizes, the different sets of heads to edit, order -> which set it has edited at each size)."""
    every, random = every_head(plan.model), np.random.default_rng(plan.seed)
    drawn = {f"random {number}": _shuffled(every, random) for number in range(random_orders)}
    ranked = {name: _completed(order, every, random) for name, order in orders.items()}
    sizes, sets = sizes_of(len(every)), {}
    places = {
        name: [sets.setdefault(tuple(sorted(order[:size])), len(sets)) for size in sizes]
        for name, order in {**ranked, **drawn}.items()
    }
    return sizes, list(sets), places


def _shuffled(heads: Sequence[Head], random: np.random.Generator) -> list[Head]:
    return [heads[index] for index in random.permutation(len(heads))]


def _completed(order: Sequence[Head], every: Sequence[Head], random: np.random.Generator) -> list[Head]:
    """An order with the heads that it does not name behind it, in random order."""
    return [*order, *_shuffled(sorted(set(every) - set(order)), random)]


def _read(
    values: np.ndarray, places: dict[str, list[int]], names: list[str], sizes: list[int], run: Run, score: str
) -> Budget:
    """Areas and curves from values [prompt, variant]."""
    clusters = run.examples()["cluster"].to_numpy()
    share = np.array(sizes) / sizes[-1]
    drawn = np.stack([values[:, places[name]] for name in places if name.startswith("random ")])
    middle = drawn.mean(0)
    chance = np.array([_area(middle - one, share).mean() for one in drawn])
    lines = []
    for name in names:
        curve = values[:, places[name]]
        area = _area(middle - curve, share)[:, None]
        low, high = bootstrap_mean(area, clusters)
        lines.append(
            {
                "reading": name, "area": float(area.mean()), "ci_low": float(low[0]), "ci_high": float(high[0]),
                "chance": float((chance >= area.mean()).mean()), "to_half": _to_half(curve.mean(0), sizes),
                "n": len(set(clusters)),
            }
        )  # fmt: skip
    sign = -1 if score in LOWER_IS_BETTER else 1
    binary = bool(run.header["probes"][score]["binary"])
    curves = [_curve(name, sign * values[:, at], sizes, clusters, binary=binary) for name, at in places.items()]
    curves.append(_curve("random", sign * middle, sizes, clusters, binary=binary))
    scores = pd.DataFrame(lines).sort_values("area", ascending=False, kind="stable").reset_index(drop=True)
    return Budget(scores, pd.concat(curves, ignore_index=True), score, run)


def _area(difference: np.ndarray, share: np.ndarray) -> np.ndarray:
    """[prompt], the mean of difference [prompt, size] over the share of heads, by trapezoids."""
    return np.trapezoid(difference, share, axis=1)


def _to_half(curve: np.ndarray, sizes: Sequence[int]) -> float:
    """The fewest heads after which less than half of the way from the first to the last point is left; NaN if never."""
    if not curve[0] > curve[-1]:
        return float("nan")
    below = np.flatnonzero(curve <= (curve[0] + curve[-1]) / 2)
    return float(sizes[below[0]]) if len(below) else float("nan")


def _curve(name: str, values: np.ndarray, sizes: Sequence[int], clusters: np.ndarray, *, binary: bool) -> pd.DataFrame:
    """mean and interval of values [prompt, size]: Wilson's where a single one is 0 or 1."""
    n = len(set(clusters))
    low, high = wilson(values.mean(0) * n, np.full(len(sizes), n)) if binary else bootstrap_mean(values, clusters)
    return pd.DataFrame(
        {"reading": name, "heads": sizes, "share": np.array(sizes) / sizes[-1], "mean": values.mean(0),
         "ci_low": low, "ci_high": high}
    )  # fmt: skip
