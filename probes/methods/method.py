"""A named method: it chooses one edit on some prompts; what the edit does is reported on others.

The files of methods take no torch until a search runs, so that what they refuse is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import pandas as pd

from ...data.errors import UserError
from ..edits.edit import Edit

if TYPE_CHECKING:
    from .search import Search

ROUNDING = 1e-6
"""A gain up to this is float32 rounding: a head that it is all of is not said to help."""


@dataclass(frozen=True)
class Choice:
    """What a method chose, and what it saw."""

    edit: Edit | None
    """None: nothing was better than the model as it is."""
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    """A row for each head or step that was tried."""
    grid: pd.DataFrame = field(default_factory=pd.DataFrame)
    """A row for each amount that was tried: amount, mean, gain."""


class Method(Protocol):
    """What a method offers."""

    name: ClassVar[str]

    def forwards(self, search: Search) -> int:
        """At most so many edited forwards for each prompt; refuses what this model or data can't have."""
        ...

    def choose(self, search: Search) -> Choice:
        """The edit."""
        ...


def check_grid(grid: Sequence[float], name: str) -> None:
    """Refuse a grid that is empty or holds an amount that is not above 0."""
    wrong = [one for one in grid if not one > 0]
    if wrong or not grid:
        came = f"{wrong[0]:g}" if wrong else "no values"
        raise UserError(f"{name}: expected a grid of values above 0, as 0.5,1,2; came {came}")


def best_of_grid(search: Search, edits: Sequence[Edit], said: str) -> tuple[Edit | None, pd.DataFrame]:
    """(the edit with the best score, the first of equals, or None if none is better than no edit; the grid's table)."""
    means = search.means_of(edits, said)
    gains = search.gains(means)
    table = pd.DataFrame({"amount": [one.amount for one in edits], "mean": means, "gain": gains})
    best = int(gains.argmax())
    return (edits[best] if gains[best] > 0 else None), table
