"""ACT: hidden sinks lose weight in the heads for which that helps; heads are searched offline, one at a time.

A hidden sink of a head and prompt is a key but the first that gets more than `threshold` on average (by default 5 / N;
the released code: 0.1). It keeps a share `amount` of its weight, the rest goes to the other keys as they have weight. A
head is kept if the score is better with it alone calibrated; then all kept heads are calibrated together.
Source: Yu et al., Unveiling and Harnessing Hidden Attention Sinks (ACT), section 4; they leave out the first two layers
and the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from ...data.errors import UserError
from ...data.heads import head_name
from ..edits.edit import Edit
from ..edits.sets import Head
from .method import Choice

if TYPE_CHECKING:
    from .search import Search

PAPER = (0, 1, -1)
"""Layers that the paper leaves out; below 0 they count from the end."""


@dataclass(frozen=True)
class Act:
    """Calibration of every head that it helps alone."""

    name: ClassVar[str] = "act"
    amount: float = 0.4
    """The share of its weight that a hidden sink keeps; beta in the paper."""
    threshold: float | None = None
    leave_out: tuple[int, ...] = PAPER

    def __post_init__(self) -> None:
        self.edit([(0, 0)])

    def edit(self, heads: list[Head]) -> Edit:
        """The calibration of some heads."""
        names = [head_name(*one) for one in heads]
        return Edit("act", names, amount=self.amount, threshold=self.threshold)

    def heads(self, search: Search) -> list[Head]:
        """The heads of the layers that are not left out."""
        layers = sorted({layer for layer, _ in search.heads})
        beyond = [one for one in self.leave_out if not -len(layers) <= one < len(layers)]
        out = {layers[one] for one in self.leave_out if one not in beyond}
        kept = [one for one in search.heads if one[0] not in out]
        if not kept or (beyond and self.leave_out != PAPER):
            given = ",".join(map(str, self.leave_out))
            raise UserError(
                f"{self.name}: leaving out layers {given} of {len(layers)} leaves {len(kept)} heads; expected layers "
                f"from {-len(layers)} to {len(layers) - 1} and some to try, as --leave-out 0 or --leave-out none"
            )
        return kept

    def forwards(self, search: Search) -> int:
        """One for each head."""
        return len(self.heads(search))

    def choose(self, search: Search) -> Choice:
        """Every head that helps alone."""
        heads = self.heads(search)
        means = search.means_of([self.edit([one]) for one in heads], f"{self.name}, heads")
        gains = search.gains(means)
        table = pd.DataFrame(
            {"heads": [head_name(*one) for one in heads], "mean": means, "gain": gains, "kept": gains > 0}
        )
        kept = [head for head, gain in zip(heads, gains, strict=True) if gain > 0]
        return Choice(self.edit(kept) if kept else None, table)
