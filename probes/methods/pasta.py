"""PASTA-style steering: every key of the prompt but those of the group to stress counts alpha times.

log alpha is added to the logits of these keys (PASTA's `exclude` mode), in all heads or in chosen ones; keys of the
answer so far are left as they are. Source: Zhang et al., Tell Your Model Where to Attend (PASTA), section 3; alpha of
0.9 to 0.95 in all heads as in Wang et al., On the Loss of Context-awareness, released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...data.groups import NOT, check_names
from ..edits.edit import Edit
from .method import Choice, best_of_grid, check_grid

if TYPE_CHECKING:
    from ..plan import Plan
    from .search import Search

GRID = (0.9, 0.95)


@dataclass(frozen=True)
class Pasta:
    """Alpha for all keys but a group's; a grid of one alpha is taken as it is."""

    name: ClassVar[str] = "pasta"
    group: str = "user"
    grid: tuple[float, ...] = GRID
    heads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_grid(self.grid, self.name)

    def edits(self, plan: Plan) -> list[Edit]:
        """One for each alpha."""
        groups = plan.data.groups
        check_names(self.group, groups, self.name, plan.data.spec)
        kept = [self.group, *(["answer"] if "answer" in groups and "answer" not in self.group.split("+") else [])]
        return [Edit("boost", self.heads, from_group=NOT + "+".join(kept), amount=one) for one in self.grid]

    def forwards(self, search: Search) -> int:
        """One for each alpha; none where there is no choice."""
        edits = self.edits(search.chosen_on)
        return len(edits) if len(edits) > 1 else 0

    def choose(self, search: Search) -> Choice:
        """The best alpha."""
        edits = self.edits(search.chosen_on)
        if len(edits) == 1:
            return Choice(edits[0])
        edit, grid = best_of_grid(search, edits, f"{self.name}, alpha")
        return Choice(edit, grid=grid)
