"""Head budget curves, run: the sets of heads of each order, and one run of edited forwards that scores them all.

What is read off them, areas and curves, stands in `data/budget.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.budget import SINGLE, Budget, stored_budget
from ..data.errors import UserError
from .causal import every_head
from .edit_run import EditPlan, Means, carry_out
from .edits.edit import Edit
from .edits.sets import Head
from .plan import Plan
from .progress import Report

ORDERS = 10
"""Random orders by default."""


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
    if score not in (None, *made.names):
        raise UserError(f"these prompts have no score {score!r}; they have {', '.join(made.names)}")
    named = {name: len(order) for name, order in orders.items()}
    held = {"score": score or made.names[0], "sizes": sizes, "orders": places, "named": named}
    return stored_budget(carry_out(replace(made, budget=held), store, report=report))


def points(
    plan: Plan, orders: Mapping[str, Sequence[Head]], random_orders: int = ORDERS
) -> tuple[list[int], list[tuple[Head, ...]], dict[str, list[int]]]:
    """(sizes, the different sets of heads to edit, order -> which set it has edited at each size)."""
    if taken := [name for name in orders if f"{name} ".startswith(SINGLE)]:
        raise UserError(f"{taken[0]!r}: expected an order whose name does not begin with 'random'")
    every, random = every_head(plan.model), np.random.default_rng(plan.seed)
    drawn = {f"{SINGLE}{number}": _shuffled(every, random) for number in range(random_orders)}
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
