"""The labels of tokens: one per token, the most specific that holds, and which label is a kind of which other."""

from __future__ import annotations

from collections.abc import Collection

from .errors import DataError, near_miss

GROUPS = (
    "rest",
    "bos",
    "separator",
    "system",
    "user",
    "assistant",
    "template",
    "answer",
    "needle",
    "distractor",
    "subject",
    "repeat",
    "image",
    "image_sink",
    "other",
    "padding",
)
"""The labels that every batch knows, as many as a kernel keeps apart; a token without a label of its own is `rest`."""

SLOTS = tuple(f"slot{number}" for number in range(1, 7))
"""The documents of a prompt by the place they stand in, whatever they hold; a batch knows them where it uses one."""

LABELS = (*GROUPS, *SLOTS)
"""Every label there is."""

KEPT = frozenset({"rest", "answer", "padding"})
"""Labels that no batch goes without."""

PARENTS = {
    "needle": "user",
    "distractor": "user",
    "subject": "user",
    "image_sink": "image",
    **dict.fromkeys(SLOTS, "user"),
}
"""Child -> parent: asking for the parent sums its children."""


def family(name: str) -> tuple[str, ...]:
    """The label and every label below it, in the order of `LABELS`."""
    check_group(name)
    below = {name}
    while grown := {child for child, parent in PARENTS.items() if parent in below} - below:
        below |= grown
    return tuple(label for label in LABELS if label in below)


def depth(name: str) -> int:
    """0 for a label without a parent, one more for each parent: the deeper, the more specific."""
    steps = 0
    while name in PARENTS:
        name, steps = PARENTS[name], steps + 1
    return steps


def check_group(name: str) -> None:
    """Refuse a label that is not in `LABELS`, with the closest one."""
    if name not in LABELS:
        raise DataError(f"unknown token group {name!r}.{near_miss(name, LABELS)} Expected one of {', '.join(LABELS)}")


def columns_for(used: Collection[str]) -> tuple[str, ...]:
    """The labels of a batch whose tokens carry `used`: `GROUPS`, unless others are needed.

    Those take the places of the last of `GROUPS` that no token carries; more than there are places is an error.
    """
    if set(used) <= set(GROUPS):
        return GROUPS
    wanted = KEPT | set(used)
    if len(wanted) > len(GROUPS):
        raise DataError(
            f"expected at most {len(GROUPS)} token groups in a batch; came {len(wanted)}: "
            f"{', '.join(label for label in LABELS if label in wanted)}. Leave out some labels, or measure the prompts "
            "that carry them as another data set"
        )
    spare = [label for label in GROUPS if label not in wanted]
    wanted |= set(spare[: len(GROUPS) - len(wanted)])
    return tuple(label for label in LABELS if label in wanted)
