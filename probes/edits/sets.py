"""Sets of heads to set against each other: those a reading names, random ones of the same size, and all the others.

A random set has as many heads of each layer as the chosen one, none of them chosen. Where there are fewer than 20 such
sets, each head is drawn from the nearest layer that has heads left; where that leaves too few as well, from all layers;
where no more heads are left than are chosen, from all heads, so that sets share heads with the chosen one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Head = tuple[int, int]
ENOUGH = 20
"""Random sets of the same layers that must exist for the control to be drawn from them."""
SAME, NEAR, ANY, SHARED = "the same layers", "the nearest layers", "all layers", "all heads, the chosen ones among them"
"""Where the heads of random sets come from."""


def random_sets(
    chosen: Sequence[Head], every: Sequence[Head], *, count: int, seed: int
) -> tuple[list[list[Head]], str]:
    """(`count` sets of as many heads as `chosen`, and where they are drawn from); none where every head is chosen.

    >>> every = [(layer, head) for layer in range(2) for head in range(30)]
    >>> sets, where = random_sets([(1, 0)], every, count=3, seed=0)
    >>> [len(one) for one in sets], {layer for one in sets for layer, _ in one}, where
    ([1, 1, 1], {1}, 'the same layers')
    """
    random = np.random.default_rng(seed)
    others = sorted(set(every) - set(chosen))
    if not others:
        return [], ANY
    if len(others) <= len(chosen):
        return [_any(chosen, sorted(every), random) for _ in range(count)], SHARED
    where = SAME if _sets_of(chosen, others) >= ENOUGH else NEAR if _near_enough(chosen, others) else ANY
    draw = {SAME: _near, NEAR: _near, ANY: _any}[where]
    return [draw(chosen, others, random) for _ in range(count)], where


def others_than(chosen: Sequence[Head], every: Sequence[Head]) -> list[Head]:
    """The complement of a set."""
    return sorted(set(every) - set(chosen))


def _sets_of(chosen: Sequence[Head], others: Sequence[Head]) -> int:
    """How many sets of unchosen heads have the layers of the chosen ones."""
    left = Counter(layer for layer, _ in others)
    return math.prod(math.comb(left[layer], count) for layer, count in Counter(layer for layer, _ in chosen).items())


def _near_enough(chosen: Sequence[Head], others: Sequence[Head]) -> bool:
    """Whether the layers that a draw by distance takes from leave a choice."""
    taken = Counter(layer for layer, _ in _near(chosen, others, np.random.default_rng(0)))
    left = Counter(layer for layer, _ in others)
    return math.prod(math.comb(left[layer], count) for layer, count in taken.items()) >= ENOUGH


def _near(chosen: Sequence[Head], others: Sequence[Head], random: np.random.Generator) -> list[Head]:
    """One head for each chosen one: of its layer, or of the nearest layer that has any left."""
    left: dict[int, list[int]] = {}
    for layer, head in others:
        left.setdefault(layer, []).append(head)
    found: list[Head] = []
    for layer, _ in sorted(chosen):
        nearest = min((one for one in left if left[one]), key=lambda one: (abs(one - layer), one))
        heads = left[nearest]
        found.append((nearest, heads.pop(int(random.integers(len(heads))))))
    return sorted(found)


def _any(chosen: Sequence[Head], others: Sequence[Head], random: np.random.Generator) -> list[Head]:
    picked = random.choice(len(others), size=len(chosen), replace=False)
    return sorted(others[index] for index in picked)
