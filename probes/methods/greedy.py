"""Greedy selection: the head whose edit makes the score best (or worst) is added, one after another.

Each step tries every head that is left together with those already taken, so k heads of H cost k H - k (k - 1) / 2
forwards a prompt. It stops where no head adds anything; of equals the first head is taken.
Source: as the greedy search for sets of heads in Wang et al., Interpretability in the Wild, section 4 (completeness).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from ...data.errors import UserError
from ...data.heads import head_name
from ..edits.edit import Edit
from ..edits.sets import Head
from .method import ROUNDING, Choice

if TYPE_CHECKING:
    from .search import Search

GOALS = ("better", "worse")


@dataclass(frozen=True)
class Greedy:
    """Up to `k` heads, all edited alike."""

    name: ClassVar[str] = "greedy"
    kind: str = "zero"
    k: int = 4
    goal: str = "better"
    amount: float | None = None
    from_group: str | None = None
    to_group: str | None = None
    sinks: int | None = None
    recent: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.goal not in GOALS or self.k < 1:
            raise UserError(
                f"{self.name}: expected a goal of {', '.join(GOALS)} and 1 head or more; came {self.goal!r}, k={self.k}"
            )
        self.edit([(0, 0)])

    def edit(self, heads: list[Head]) -> Edit:
        """The edit of some heads."""
        return Edit(
            self.kind, [head_name(*one) for one in heads], amount=self.amount, from_group=self.from_group,
            to_group=self.to_group, sinks=self.sinks, recent=self.recent, threshold=self.threshold,
        )  # fmt: skip

    def forwards(self, search: Search) -> int:
        """One for each head that is left, at each step."""
        count = len(search.heads)
        if self.k > count:
            raise UserError(f"{self.name}: expected at most the model's {count} heads; came k={self.k}")
        return self.k * count - self.k * (self.k - 1) // 2

    def choose(self, search: Search) -> Choice:
        """Add heads while the score moves towards the goal."""
        sign = 1 if self.goal == "better" else -1
        taken: list[Head] = []
        reached, steps = 0.0, []
        for step in range(1, self.k + 1):
            left = [one for one in search.heads if one not in taken]
            means = search.means_of([self.edit([*taken, one]) for one in left], f"{self.name}, step {step}")
            gains = search.gains(means)
            best = int((sign * gains).argmax())
            if sign * gains[best] <= reached + ROUNDING:
                break
            taken.append(left[best])
            reached = sign * gains[best]
            steps.append(
                {"step": step, "heads": head_name(*left[best]), "mean": means[best], "gain": gains[best],
                 "as_good": int((sign * gains == reached).sum()) - 1}
            )  # fmt: skip
        columns = ["step", "heads", "mean", "gain", "as_good"]
        return Choice(self.edit(taken) if taken else None, pd.DataFrame(steps, columns=columns))
