"""Sets of heads to set against each other: those a reading names, random ones of the same size, and all the others.

A random set has a head for each chosen one, of the same layer and itself not chosen. Where there are fewer than 20 such
sets, layers one step away count too, then two steps, until there are enough: a control that is matched by depth as far
as the model allows, and that says how far that is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Head = tuple[int, int]
ENOUGH = 20
"""Random sets that must exist."""
SAME = "the same layers"
SHARED = "all heads, chosen ones too"
"""Where the heads of random sets come from."""


def random_sets(
    chosen: Sequence[Head], every: Sequence[Head], *, count: int, seed: int
) -> tuple[list[list[Head]], str]:
    """(`count` sets of as many heads as `chosen`, and where they are drawn from); none where every head is chosen.

    Where fewer heads are left than were chosen, sets are drawn from all heads.

    >>> every = [(layer, head) for layer in range(2) for head in range(30)]
    >>> sets, where = random_sets([(1, 0)], every, count=3, seed=0)
    >>> [len(one) for one in sets], {layer for one in sets for layer, _ in one}, where
    ([1, 1, 1], {1}, 'the same layers')
    """
    random = np.random.default_rng(seed)
    others = sorted(set(every) - set(chosen))
    if not others or len(set(every)) < len(chosen):
        return [], SAME
    if len(others) <= len(chosen):
        return [_any(chosen, sorted(every), random) for _ in range(count)], SHARED
    reach = _reach(chosen, others)
    where = SAME if reach == 0 else f"layers at most {reach} away"
    return [_near(chosen, others, reach, random) for _ in range(count)], where


def others_than(chosen: Sequence[Head], every: Sequence[Head]) -> list[Head]:
    """The complement of a set."""
    return sorted(set(every) - set(chosen))


def _reach(chosen: Sequence[Head], others: Sequence[Head]) -> int:
    """The fewest steps between layers that leave enough sets to draw."""
    layers = Counter(layer for layer, _ in chosen)
    farthest = max(abs(layer - other) for layer in layers for other, _ in others)
    for reach in range(farthest):
        pools = {layer: [one for one in others if abs(one[0] - layer) <= reach] for layer in layers}
        union = {one for pool in pools.values() for one in pool}
        fits = len(union) >= len(chosen) and all(len(pools[layer]) >= count for layer, count in layers.items())
        ways = math.prod(math.comb(len(pools[layer]), count) for layer, count in layers.items()) if reach == 0 else 0
        if fits and (ways or math.comb(len(union), len(chosen))) >= ENOUGH:
            return reach
    return farthest


def _near(chosen: Sequence[Head], others: Sequence[Head], reach: int, random: np.random.Generator) -> list[Head]:
    """One head for each chosen one, of a layer within reach, or of the nearest that has any left."""
    left, found = list(others), []
    for index in random.permutation(len(chosen)):
        layer = chosen[index][0]
        nearest = min(abs(one[0] - layer) for one in left)
        pool = [one for one in left if abs(one[0] - layer) <= max(reach, nearest)]
        found.append(pool[int(random.integers(len(pool)))])
        left.remove(found[-1])
    return sorted(found)


def _any(chosen: Sequence[Head], others: Sequence[Head], random: np.random.Generator) -> list[Head]:
    picked = random.choice(len(others), size=len(chosen), replace=False)
    return sorted(others[index] for index in picked)
