"""ZeroTuning: the weight on the first token times gamma, in the heads for which that helps.

    a'_0 = gamma a_0 / D,  a'_j = a_j / D,  D = 1 + (gamma - 1) a_0

which is log gamma on the logit of key 0. A head is *up-effective* if the score is better with gamma above 1,
*down-effective* if with gamma below 1, each head tried alone. Gamma is then taken from a grid for the class with more
heads: by the score, or without labels by the entropy of the answers (score `answer_entropy`).
Source: Han et al., ZeroTuning, sections 3 and 4; the released code tries one head index in all layers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from ...data.errors import UserError
from ...data.groups import FIRST
from ...data.heads import head_name
from ..edits.edit import Edit
from ..edits.sets import Head
from .method import Choice, best_of_grid, check_grid

if TYPE_CHECKING:
    from .search import Search

GRID = (0.1, 0.3, 0.5, 0.7, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class ZeroTuning:
    """Gamma for the heads of the dominant class."""

    name: ClassVar[str] = "zero-tuning"
    up: float = 2.0
    """The gamma that up-effective heads are found with."""
    down: float = 0.5
    grid: tuple[float, ...] = GRID
    across_layers: bool = False
    """Try a head index in all layers at once, as the released code does."""

    def __post_init__(self) -> None:
        check_grid(self.grid, self.name)
        if not 0 < self.down < 1 < self.up:
            raise UserError(f"{self.name}: expected down in 0..1 and up above 1; came {self.down:g} and {self.up:g}")

    def units(self, search: Search) -> list[list[Head]]:
        """The heads that are tried together."""
        if not self.across_layers:
            return [[one] for one in search.heads]
        indices = sorted({head for _, head in search.heads})
        return [[one for one in search.heads if one[1] == index] for index in indices]

    def forwards(self, search: Search) -> int:
        """Two for each head, one for each gamma."""
        return 2 * len(self.units(search)) + len(self.grid)

    def choose(self, search: Search) -> Choice:
        """Label the heads, take the larger class, and the best gamma for it."""
        units = self.units(search)
        edits = [gamma_edit(unit, gamma) for gamma in (self.up, self.down) for unit in units]
        up, down = search.gains(search.means_of(edits, f"{self.name}, heads")).reshape(2, -1)
        labels = np.select([(up > 0) & (up >= down), down > 0], ["up", "down"], "neither")
        table = pd.DataFrame(
            {"heads": [unit_name(unit) for unit in units], "gain_up": up, "gain_down": down, "label": labels}
        )
        sides = {side: (int((labels == side).sum()), float(gain[labels == side].sum())) for side, gain in
                 (("up", up), ("down", down))}  # fmt: skip
        dominant = max(sides, key=lambda side: sides[side])
        table["kept"] = (labels == dominant) & (labels != "neither")
        kept = [head for unit, take in zip(units, table["kept"], strict=True) if take for head in unit]
        if not kept:
            return Choice(None, table)
        edit, grid = best_of_grid(search, [gamma_edit(kept, one) for one in self.grid], f"{self.name}, gamma")
        return Choice(edit, table, grid)


def gamma_edit(heads: list[Head], gamma: float) -> Edit:
    """The first token's weight times gamma."""
    return Edit("boost", [head_name(*one) for one in heads], from_group=FIRST, amount=gamma)


def unit_name(unit: list[Head]) -> str:
    """A head's name, or `H3 of all layers`."""
    return head_name(*unit[0]) if len(unit) == 1 else f"H{unit[0][1]} of all layers"
