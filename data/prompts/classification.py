"""Prompts with a label to tell: the topic of two words, the sentiment of a review; what learned probes are tried on.

The very tasks that pico-lm is certified for; other models read them as plain English. The label is the condition
`label`, and also the answer. `frames` are `held_out` (wording, reviewed things and pairs of words that pico-lm was
never trained on) or `train`; the words themselves it has seen, with their labels. A cluster is the two words of a
topic, or the judging word of a review: prompts that say the same stand together. The words of a topic recur in other
pairs, so a probe may learn words rather than topics; the condition `word` is there to tell (`learn --control word`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from ..catalog import dataset
from ..errors import DataError
from ..examples import Example
from ..organisms.tasks import classification
from ..organisms.tasks.prompt import Prompt
from ..organisms.words import TOPICS
from ..sampling import cell, stream
from ..vocabulary import Vocabulary

FRAMES = ("held_out", "train")
SOURCE = 'tasks of organism:pico-lm; set-up of Wang et al., "Label Words are Anchors"'


@dataset(
    name="topic",
    summary="two words of one of four topics, to label (condition `label`)",
    strata=("length",),
    groups=("user", "answer"),
    source=SOURCE,
    defaults={"shots": (0,), "frames": "held_out"},
)
def topic(
    vocab: Vocabulary, *, examples: int, seed: int, shots: tuple[int, ...] = (0,), frames: str = "held_out"
) -> Iterator[Example]:
    """Prompts after each number of demonstrations in `shots`; chance is 1/4."""
    yield from _made("topic", examples, seed, shots, frames)


@dataset(
    name="sentiment",
    summary="a review of one judging word, to label positive or negative (condition `label`)",
    strata=("length",),
    groups=("user", "answer"),
    source=SOURCE,
    defaults={"shots": (0,), "frames": "held_out"},
)
def sentiment(
    vocab: Vocabulary, *, examples: int, seed: int, shots: tuple[int, ...] = (0,), frames: str = "held_out"
) -> Iterator[Example]:
    """Prompts after each number of demonstrations in `shots`; chance is 1/2."""
    yield from _made("sentiment", examples, seed, shots, frames)


def _made(name: str, examples: int, seed: int, shots: tuple[int, ...], frames: str) -> Iterator[Example]:
    if frames not in FRAMES:
        raise DataError(f"{name}: expected frames of {', '.join(FRAMES)}; came {frames!r}")
    if not all(0 <= count <= 8 for count in shots):
        raise DataError(f"{name}: expected 0 to 8 demonstrations in shots; came {shots}")
    make = getattr(classification, name)
    for k in range(examples):
        place, _ = cell(k, shots=shots)
        rng = random.Random(int(stream(name, seed, k).integers(1 << 62)))
        prompt = make(rng, split=frames, shots=place["shots"])
        said = telling_words(prompt)
        yield Example(
            id=f"{name}-{k}",
            text=prompt.text,
            spans={"user": ((0, len(prompt.text)),)},
            answer=prompt.answer,
            wrong_answer=prompt.wrong_answers[0],
            choices=(prompt.answer, *prompt.wrong_answers),
            cluster="+".join(sorted(said)),
            conditions={**place, "label": str(prompt.conditions["label"]), "word": said[0]},
        )


def telling_words(prompt: Prompt) -> list[str]:
    """The words of the prompt's last item that give its label away, as they stand: two of a topic, one of a review."""
    kinds = TOPICS if prompt.task == "topic" else classification.SENTIMENTS
    words = set(kinds[str(prompt.conditions["label"])])
    found = [word for word in re.findall(r"\w+", prompt.text) if word in words]
    return found[-2:] if prompt.task == "topic" else found[-1:]
