"""Classification with label words, zero to three demonstrations: sentiment (2 labels) and topic (4 labels).

Source of the set-up: Wang et al., "Label Words are Anchors". The class words are the same in both splits; held out are
the wording, the things reviewed, and the pairs of topic words. The partner swaps the class words of the last item.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..words import HELD_OUT_REVIEWED, NEGATIVE, POSITIVE, REVIEWED, TOPICS
from .prompt import Prompt, Split, templates_of

SENTIMENT_TEMPLATES = (
    ("Review: the {thing} was {word}.", " Label:"),
    ("I think the {thing} is {word}.", " Label:"),
    ("What a {word} {thing}!", " Label:"),
    ("Text: a very {word} {thing}.", " Sentiment:"),
)
HELD_OUT_SENTIMENT_TEMPLATES = (
    ("We found the {thing} {word}.", " Label:"),
    ("Review: a {word} {thing}.", " Sentiment:"),
)
SENTIMENTS = {"positive": POSITIVE, "negative": NEGATIVE}

TOPIC_TEMPLATES = (
    ("Text: the {one} and the {two}.", " Topic:"),
    ("They talked about the {one}, not the {two}.", " Topic:"),
    ("A {one} near a {two}.", " Topic:"),
)
HELD_OUT_TOPIC_TEMPLATES = (("She knows the {one} and the {two}.", " Topic:"), ("Text: a {one} or a {two}.", " Topic:"))


def sentiment(rng: random.Random, *, split: Split = "train", shots: int | None = None) -> Prompt:
    """One review to label, after `shots` demonstrations (None: drawn, 0 to 3); chance is 1/2."""
    body, cue = rng.choice(templates_of(split, SENTIMENT_TEMPLATES, HELD_OUT_SENTIMENT_TEMPLATES))
    things = templates_of(split, REVIEWED, HELD_OUT_REVIEWED)

    def item(label: str) -> str:
        return body.format(thing=rng.choice(things), word=rng.choice(SENTIMENTS[label])) + cue

    return _labelled("sentiment", rng, tuple(SENTIMENTS), item, shots)


def topic(rng: random.Random, *, split: Split = "train", shots: int | None = None) -> Prompt:
    """One pair of words to label with its subject; even pairs of words train, odd pairs are held out. Chance is 1/4."""
    body, cue = rng.choice(templates_of(split, TOPIC_TEMPLATES, HELD_OUT_TOPIC_TEMPLATES))
    parity = 0 if split == "train" else 1

    def item(label: str) -> str:
        words = TOPICS[label]
        one = rng.randrange(len(words))
        two = rng.choice([index for index in range(len(words)) if index != one and (one + index) % 2 == parity])
        return body.format(one=words[one], two=words[two]) + cue

    return _labelled("topic", rng, tuple(TOPICS), item, shots)


def _labelled(
    task: str, rng: random.Random, labels: tuple[str, ...], item: Callable[[str], str], shots: int | None
) -> Prompt:
    shots = rng.randint(0, 3) if shots is None else shots
    demonstrations = "".join(f"{item(label)} {label}. " for label in rng.choices(labels, k=shots))
    right, *wrong = rng.sample(labels, len(labels))
    return Prompt(
        task=task,
        text=demonstrations + item(right),
        answer=f" {right}",
        wrong_answers=tuple(f" {label}" for label in wrong),
        corrupted=demonstrations + item(wrong[0]),
        conditions={"shots": shots, "label": right},
    )
