"""The labels of tokens: one per token, the most specific that holds, and which label is a kind of which other."""

from __future__ import annotations

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
"""Every label, in order; a token without a label of its own is `rest`."""

PARENTS = {"needle": "user", "distractor": "user", "subject": "user", "image_sink": "image"}
"""Child -> parent: asking for the parent sums its children."""


def family(name: str) -> tuple[str, ...]:
    """The label and every label below it, in the order of `GROUPS`."""
    check_group(name)
    below = {name}
    while grown := {child for child, parent in PARENTS.items() if parent in below} - below:
        below |= grown
    return tuple(group for group in GROUPS if group in below)


def depth(name: str) -> int:
    """0 for a label without a parent, one more for each parent: the deeper, the more specific."""
    steps = 0
    while name in PARENTS:
        name, steps = PARENTS[name], steps + 1
    return steps


def check_group(name: str) -> None:
    """Refuse a label that is not in `GROUPS`, with the closest one."""
    if name not in GROUPS:
        raise DataError(f"unknown token group {name!r}.{near_miss(name, GROUPS)} Expected one of {', '.join(GROUPS)}")
