"""The tasks of the certificate: how to make a held-out prompt, what a guesser gets, and what was promised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from . import (
    capitals,
    chat_roles,
    classification,
    colored_objects,
    greater_than,
    indirect_objects,
    multiple_choice,
    needle,
)
from .prompt import Make


@dataclass(frozen=True)
class Task:
    """One task with an answer. `chance` is the accuracy of a guess among the task's own answers."""

    make: Make
    chance: float
    held_out: str
    """What of the held-out prompts never occurred in training."""
    target: float | None = None
    """The accuracy that was promised, where one was."""


SHORT_TASKS: dict[str, Task] = {
    "indirect_objects": Task(indirect_objects.make, indirect_objects.CHANCE, "templates, names, objects", target=0.95),
    "greater_than": Task(greater_than.make, 0.5, "templates, events"),
    "multiple_choice": Task(multiple_choice.make, multiple_choice.CHANCE, "templates, objects"),
    "capitals": Task(capitals.make, capitals.CHANCE, "templates (the facts are trained)"),
    "chat_roles": Task(chat_roles.make, chat_roles.CHANCE, "templates, names, places"),
    "sentiment": Task(classification.sentiment, 1 / 2, "templates, reviewed things"),
    "topic": Task(classification.topic, 1 / 4, "templates, word pairs"),
    "colored_objects_2": Task(partial(colored_objects.make, objects=2), 1 / 2, "templates, objects"),
    "colored_objects_3": Task(partial(colored_objects.make, objects=3), 1 / 3, "templates, objects"),
    "colored_objects_4": Task(partial(colored_objects.make, objects=4), 1 / 4, "templates, objects"),
}
NEEDLE = Task(needle.make, 0.0, "templates, places, secrets, haystack sentences", target=0.95)
NEEDLE_LENGTHS = (128, 192, 256, 384, 512)
NEEDLE_TARGET_LENGTHS = (128, 192, 256)
NEEDLE_DEPTHS = tuple(index / 9 for index in range(10))
