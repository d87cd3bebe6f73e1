"""The labels of tokens: one per token, the most specific that holds, and which label is a kind of which other."""

from __future__ import annotations

from collections.abc import Collection

from .errors import DataError, UserError, near_miss

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

FIRST = "first"
"""A name of the first token that is no padding, whatever its label."""

ANSWERING = "answering"
"""A name of the tokens that say the answer: the next token is one of it. The first is the prompt's last token."""

NOT = "not:"
"""Before a name: all tokens that it does not name."""

ALWAYS = frozenset({"bos", "separator", "rest"})
"""Labels that any tokenizer's frame gives: they may be asked of any data."""

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


def check_names(text: str, groups: Collection[str], what: str, data: str) -> None:
    """Refuse names of tokens (`needle+answer`, `not:user`, `first`) that data with the labels `groups` can't have.

    >>> check_names("first+needle", ("needle", "answer"), "edit block", "needle")
    """
    for one in text.removeprefix(NOT).split("+"):
        if one == FIRST:
            continue
        if one != ANSWERING and one not in LABELS:
            known = (*LABELS, FIRST, ANSWERING)
            raise UserError(
                f"{what}: unknown token group {one!r}.{near_miss(one, known)} Expected one of {', '.join(known)}"
            )
        wanted = {"answer"} if one == ANSWERING else set(family(one))
        if one not in ALWAYS and not wanted & set(groups):
            there = ", ".join(label for label in LABELS if label in groups) or "no labels"
            raise UserError(
                f"{what}: no token of {data!r} is {one!r}; expected one of its labels ({there}) or {FIRST!r}"
            )


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
