"""How examples are spread over a grid of conditions, and where their randomness comes from.

Every example has a random stream of its own, made of the data set's name, the seed and the example's number: example k
is the same whatever the number of examples asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np


def stream(name: str, seed: int, *keys: int | str) -> np.random.Generator:
    """The random stream of (data set, seed, keys)."""
    numbers = [key if isinstance(key, int) else crc32(key.encode()) for key in keys]
    return np.random.default_rng([crc32(name.encode()), seed, *numbers])


def cell(k: int, **axes: Sequence[Any]) -> tuple[dict[str, Any], int]:
    """Example k's place in the grid, the first axis turning fastest, and its repetition within that place."""
    place = {}
    for name, values in axes.items():
        k, index = divmod(k, len(values))
        place[name] = values[index]
    return place, k
