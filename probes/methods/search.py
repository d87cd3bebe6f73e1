"""A search over edits: prompts to choose on, others to report on, and what each of many edits does to a score.

Prompts are split in two by cluster. What is tried on the first half is written as runs of edited forwards, so a search
that was stopped goes on where it was, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...data.causal import LOWER_IS_BETTER, values_of
from ...data.errors import UserError
from ...data.reports import edit_link
from ...data.run import Run
from ..causal import every_head, part_of_plan
from ..edit_run import EditPlan, Means, carry_out
from ..edits.edit import Edit
from ..edits.sets import Head
from ..plan import Plan
from ..progress import Report
from .method import ROUNDING


@dataclass(frozen=True)
class Search:
    """What a method chooses with."""

    chosen_on: Plan
    held_out: Plan
    score: str
    store: str | Path
    report: Report | None = None

    @cached_property
    def heads(self) -> list[Head]:
        """Every head of the text tower."""
        return every_head(self.chosen_on.model)

    @cached_property
    def unedited(self) -> Run:
        """The model as it is, on the prompts to choose on."""
        return carry_out(EditPlan(self.chosen_on, said="unedited"), self.store, report=self.report)

    @cached_property
    def means(self) -> Means:
        """The mean outputs of heads on the prompts to choose on."""
        return Means(self.chosen_on)

    @property
    def mean(self) -> float:
        """The score of the model as it is, on the prompts to choose on."""
        return float(values_of(self.unedited, self.score).mean())

    def means_of(self, edits: Sequence[Edit], said: str) -> np.ndarray:
        """[edit], the mean score with each of `edits` in force alone, on the prompts to choose on."""
        needed = any(one.kind_of.needs == "means" for one in edits)
        variants = [[one] for one in edits]
        means = self.means if needed else None
        plan = EditPlan(self.chosen_on, variants, [edit_link(self.unedited.id)], means, f"search: {said}")
        return values_of(carry_out(plan, self.store, report=self.report), self.score).mean(0)

    def gains(self, means: np.ndarray) -> np.ndarray:
        """How much better than the model as it is; above 0 is better also where a lower score is, 0 if by rounding."""
        gains = (means - self.mean) * (-1 if self.score in LOWER_IS_BETTER else 1)
        return np.where(np.abs(gains) <= ROUNDING, 0.0, gains)


def halves(plan: Plan) -> tuple[Plan, Plan]:
    """(prompts to choose on, prompts to report on): half of the clusters each, drawn by the plan's seed."""
    clusters = plan.frame["cluster"].astype(str).to_numpy()
    names = np.unique(clusters)
    if len(names) < 2:
        raise UserError(
            f"expected prompts of 2 clusters or more, to choose on some and report on others; {plan.data.spec!r} has "
            f"{len(clusters)} of {len(names)}. Ask for more --examples"
        )
    first = np.random.default_rng(plan.seed).permutation(names)[: len(names) // 2]
    inside = np.isin(clusters, first)
    chosen_on, held_out = (part_of_plan(plan, np.flatnonzero(part).tolist()) for part in (inside, ~inside))
    return replace(chosen_on, data=replace(chosen_on.data, strata=())), held_out  # a search asks for means over all
