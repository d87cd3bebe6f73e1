"""Notes in the words of the organisms: a four-word secret of a place, and the question that the note answers.

The frames, places and secrets are those pico-lm is certified on and was never trained on; other models read them as
plain English. All notes of one draw have the same frame and share no word of their secrets, so only the place tells
them apart, and a token of the answer occurs in one note alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ..organisms.tasks.needle import ANSWER_WORDS, HELD_OUT_TEMPLATES, haystack
from ..organisms.words import FILLERS, HELD_OUT_PLACES, HELD_OUT_SECRETS
from ..sampling import stream

MOST = len(HELD_OUT_PLACES)
"""Notes that one prompt can have: each is about a place of its own."""


@dataclass(frozen=True)
class Note:
    """`text` states the secret, `question` asks for it up to the word before, `words` are the answer."""

    text: str
    question: str
    words: str
    frame: str

    @property
    def place(self) -> tuple[int, int]:
        """Where the words stand in the text, [start, end)."""
        start = self.text.index(self.words)
        return start, start + len(self.words)


def random_of(name: str, seed: int, *keys: int) -> random.Random:
    """The random stream of (data set, seed, keys), as the organisms' generators take it."""
    return random.Random(int(stream(name, seed, *keys).integers(1 << 62)))


def draw_notes(rng: random.Random, count: int) -> list[Note]:
    """`count` notes of one frame and kind of secret, about different places; at most `MOST`."""
    frame, question = rng.choice(HELD_OUT_TEMPLATES)
    secret = rng.choice(HELD_OUT_SECRETS)
    places = rng.sample(HELD_OUT_PLACES, count)
    drawn = rng.sample(FILLERS, ANSWER_WORDS * count)
    made = []
    for index, place in enumerate(places):
        words = " ".join(drawn[index * ANSWER_WORDS : (index + 1) * ANSWER_WORDS])
        text = frame.format(secret=secret, place=place, words=words)
        made.append(Note(text, question.format(secret=secret, place=place), words, frame))
    return made


def surrounded(
    rng: random.Random, notes: list[Note], *, budget: int, count_tokens: Callable[[str], int]
) -> tuple[str, list[tuple[int, int]]]:
    """The notes between sentences of at most `budget` tokens, at random places; where each note's secret stands."""
    sentences = haystack(rng, budget, count_tokens, "held_out")
    spots = [rng.randint(0, len(sentences)) for _ in notes]
    pieces, places, at = [], [(0, 0)] * len(notes), 0
    for spot in range(len(sentences) + 1):
        for index, note in enumerate(notes):
            if spots[index] == spot:
                start, end = note.place
                places[index] = (at + start, at + end)
                pieces.append(note.text)
                at += len(note.text) + 1
        if spot < len(sentences):
            pieces.append(sentences[spot])
            at += len(sentences[spot]) + 1
    return " ".join(pieces), places
