"""Head budgets: how a score falls as more heads are edited, in the order of a reading and in random orders.

The area between the two is the reading's causal score: (mean random score - score in the reading's order), averaged
over the share of heads edited; for a loss the sign is turned round. 0: the reading says no more than chance which heads
matter, above 0: it finds them first, below 0: it puts them last. Intervals are over prompts; how far random orders lie
from each other says what a single order does by chance.

A run of `headatlas budget` has a variant for each set of heads, and says in its header which of them stand in a row:
`budget: {"score": NAME, "sizes": [0, 1, 2, 4], "orders": {NAME: [variant, ...]}, "named": {NAME: count}}`. A reading
that names fewer heads than there are is followed by the others at random; `named` is how many are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .causal import LOWER_IS_BETTER, RANDOM, values_of
from .errors import StoreError
from .heads import parse_head
from .intervals import bootstrap_mean, wilson
from .run import Run

SINGLE = f"{RANDOM} "
"""What the name of a single random order begins with."""


@dataclass(frozen=True)
class Budget:
    """Curves of some readings, and of random orders, over the same prompts."""

    scores: pd.DataFrame
    """reading, area, ci_low, ci_high, chance (share of random orders with a larger area), to_half, named, n; best
    first."""
    curves: pd.DataFrame
    """reading, heads, share, mean, ci_low, ci_high, added (the heads of this step, `L1H0 L1H3`), named (how many of the
    heads so far the reading itself names); random orders are `random 0` and on, their mean is `random`."""
    score: str
    run: Run


def stored_budget(run: Run, score: str | None = None) -> Budget:
    """The budget that a run of `headatlas budget` holds, of the score it was made for or of another one.

    `ha.stored_budget(ha.open_store("runs").run(ID))`
    """
    header = run.header
    held = header.get("budget")
    if not held:
        raise StoreError(
            f"run {run.id} says no orders of heads, so it is no budget or one of an earlier version; the same "
            "`headatlas budget` command adds them without a forward"
        )
    name = score or str(held["score"])
    if name not in header["probes"]:
        raise StoreError(f"run {run.id} has no score {name!r}; it has {', '.join(header['probes'])}")
    values = values_of(run, name) * (-1 if name in LOWER_IS_BETTER else 1)
    clusters = run.examples()["cluster"].to_numpy()
    curves = _curves(header, values, clusters, name)
    return Budget(_scores(held, values, clusters), curves, name, run)


def _scores(held: Mapping[str, Any], values: np.ndarray, clusters: np.ndarray) -> pd.DataFrame:
    """A row a reading from values [prompt, variant], higher is better."""
    places, sizes = held["orders"], held["sizes"]
    share = np.array(sizes) / sizes[-1]
    drawn = np.stack([values[:, places[name]] for name in places if name.startswith(SINGLE)])
    middle = drawn.mean(0)
    chance = np.array([_area(middle - one, share).mean() for one in drawn])
    lines = []
    for name in (one for one in places if not one.startswith(SINGLE)):
        curve = values[:, places[name]]
        area = _area(middle - curve, share)[:, None]
        low, high = bootstrap_mean(area, clusters)
        lines.append(
            {
                "reading": name, "area": float(area.mean()), "ci_low": float(low[0]), "ci_high": float(high[0]),
                "chance": float((chance >= area.mean()).mean()), "to_half": _to_half(curve.mean(0), sizes),
                "named": held["named"][name], "n": len(set(clusters)),
            }
        )  # fmt: skip
    return pd.DataFrame(lines).sort_values("area", ascending=False, kind="stable").reset_index(drop=True)


def _curves(header: Mapping[str, Any], values: np.ndarray, clusters: np.ndarray, score: str) -> pd.DataFrame:
    """The points of every order, and of the mean of the random ones."""
    held, sign = header["budget"], -1 if score in LOWER_IS_BETTER else 1
    binary = bool(header["probes"][score]["binary"])
    places, sizes = held["orders"], held["sizes"]
    tables = []
    for name, at in places.items():
        table = _curve(name, sign * values[:, at], sizes, clusters, binary=binary)
        own = [min(size, held["named"].get(name, sizes[-1])) for size in sizes]
        tables.append(table.assign(added=_added([_heads(header["edits"][one]) for one in at]), named=own))
    middle = np.stack([values[:, at] for name, at in places.items() if name.startswith(SINGLE)]).mean(0)
    mean = _curve(RANDOM, sign * middle, sizes, clusters, binary=binary)
    return pd.concat([*tables, mean.assign(added="", named=sizes)], ignore_index=True)


def _heads(edits: Sequence[Mapping[str, Any]]) -> set[str]:
    """The heads of a variant."""
    return {name for card in edits for name in card.get("heads") or ()}


def _added(sets: Sequence[set[str]]) -> list[str]:
    """The heads that each set has more than the one before it, in the order of layers."""
    before = [set(), *sets[:-1]]
    return [" ".join(sorted(one - old, key=parse_head)) for one, old in zip(sets, before, strict=True)]


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
