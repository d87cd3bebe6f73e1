"""Needles in the words of the organisms: a four-word secret in a haystack of sentences, asked for at the end.

The very task that pico-lm is certified for, so that what its heads do can be told from what it can't do; other models
read it as plain English. `frames` are `held_out` (never trained on), `train`, or `far` (three or four tokens between
the place and the secret, where training has one: the negative control). The span `needle` is the four words the answer
repeats, `distractor` the secrets of other places. A prompt has `length` tokens at most, answer and BOS included.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..catalog import dataset
from ..errors import DataError
from ..examples import Example
from ..organisms.tasks import needle
from ..sampling import cell, stream
from ..vocabulary import Vocabulary

FRAMES = ("held_out", "train", "far")


@dataset(
    name="secrets",
    summary="needles in the organisms' own words: what pico-lm is certified to find",
    strata=("length", "depth"),
    groups=("user", "needle", "distractor", "answer"),
    source='the task of organism:pico-lm; after Wu et al., "Retrieval Head Mechanistically Explains ..."',
    defaults={"lengths": (256,), "depths": (0.0, 0.25, 0.5, 0.75, 1.0), "distractors": 1, "frames": "held_out"},
)
def secrets(
    vocab: Vocabulary,
    *,
    examples: int,
    seed: int,
    lengths: tuple[int, ...] = (256,),
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    distractors: int = 1,
    frames: str = "held_out",
) -> Iterator[Example]:
    """Prompts of at most each of `lengths` tokens with the secret at each of `depths`."""
    if not all(0 <= depth <= 1 for depth in depths) or not 0 <= distractors <= 3:
        raise DataError(f"secrets: expected depths in 0..1 and 0 to 3 distractors; came {depths}, {distractors}")
    if frames not in FRAMES:
        raise DataError(f"secrets: expected frames of {', '.join(FRAMES)}; came {frames!r}")
    templates = needle.FAR_TEMPLATES if frames == "far" else needle.HELD_OUT_TEMPLATES
    for k in range(examples):
        place, _ = cell(k, length=lengths, depth=depths)
        rng = random.Random(int(stream("secrets", seed, k).integers(1 << 62)))
        prompt = needle.make(
            rng, count_tokens=vocab.count, split="train" if frames == "train" else "held_out", length=place["length"],
            depth=place["depth"], distractors=distractors, templates=templates,
        )  # fmt: skip
        vocab.room(place["length"], least=vocab.count(prompt.text + prompt.answer), name="secrets")
        yield Example(
            id=f"secrets-{k}",
            text=prompt.text,
            spans={
                "user": ((0, len(prompt.text)),),
                "needle": (_place(prompt.text, prompt.answer),),
                **(
                    {"distractor": tuple(_place(prompt.text, one) for one in prompt.wrong_answers)}
                    if distractors
                    else {}
                ),
            },
            answer=prompt.answer,
            wrong_answer=prompt.wrong_answers[0] if prompt.wrong_answers else None,
            conditions={**place, "template": str(prompt.conditions["template"])},
        )


def _place(text: str, words: str) -> tuple[int, int]:
    """Where the words stand, without the blank before them."""
    start = text.index(words) + 1
    return start, start + len(words) - 1
