"""The named methods there are."""

from __future__ import annotations

from ...data.errors import UserError, near_miss
from .act import Act
from .greedy import Greedy
from .method import Method
from .pasta import Pasta
from .zero_tuning import ZeroTuning

METHODS: dict[str, type[Method]] = {one.name: one for one in (ZeroTuning, Act, Pasta, Greedy)}


def find_method(name: str) -> type[Method]:
    """The method of that name."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}.{near_miss(name, METHODS)} Expected one of {', '.join(METHODS)}")
    return METHODS[name]
