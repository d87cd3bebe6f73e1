"""One prompt with its answer: what every task family yields.

An answer carries its own leading space (`" Mary"`), or none where it continues the last word (`"32"` after `" 17"`), so
that `text + answer` is always the exact string the model reads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from ..words import STAND_INS

Split = Literal["train", "held_out"]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Prompt:
    """A text, the answer that follows it, and the answers it is told apart from."""

    task: str
    text: str
    answer: str
    wrong_answers: tuple[str, ...] = ()
    """The other answers a guesser would choose between; empty where the answer is open."""
    accepted: tuple[str, ...] = ()
    """All right answers, where there is more than one (greater-than)."""
    corrupted: str | None = None
    """The partner: as many tokens as `text`, but its answer is `wrong_answers[0]`."""
    turns: tuple[tuple[str, str], ...] = ()
    """(text, answer) pairs that follow in training rows only: more graded tokens for the same context."""
    stop: str = "."
    """What follows an answer in training rows."""
    conditions: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def right_answers(self) -> tuple[str, ...]:
        """The accepted answers, or the one there is."""
        return self.accepted or (self.answer,)


Make = Callable[..., Prompt]


def templates_of(split: Split, training: Sequence[Choice], held_out: Sequence[Choice]) -> Sequence[Choice]:
    """The list a split draws from; anything but the two split names is refused."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split must be 'train' or 'held_out', got {split!r}")
    return training if split == "train" else held_out


def any_words(rng: random.Random, least: int, most: int) -> list[str]:
    """Between `least` and `most` words of the whole vocabulary, held-out ones left out, one in ten with a comma."""
    chosen = rng.choices(STAND_INS, k=rng.randint(least, most))
    return [f"{word}," if rng.random() < 0.1 else word for word in chosen]


def shuffled(rng: random.Random, values: Sequence[Choice]) -> list[Choice]:
    """A shuffled copy."""
    return rng.sample(values, len(values))
