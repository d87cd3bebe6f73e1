"""Random tokens said again: the prompt on which induction and duplicate-token heads show.

A segment of random ids is drawn without replacement (with, where the vocabulary is smaller than the segment) and said
`copies` times. Where the copies do not fill the length exactly, the repetition goes on for the tokens left, so the
period is the same everywhere. The span `repeat` is everything after the first copy; scores belong there (in the first
copy nothing can be predicted). Source: Olsson et al., "In-context Learning and Induction Heads".
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..catalog import dataset
from ..examples import Example
from ..sampling import cell, stream
from ..vocabulary import Vocabulary


@dataset(
    name="repeats",
    summary="a random segment of tokens, said again; what induction and duplicate-token heads read",
    strata=("length",),
    groups=("repeat",),
    source='Olsson et al., "In-context Learning and Induction Heads"',
    defaults={"length": (128,), "copies": 2},
)
def repeats(
    vocab: Vocabulary, *, examples: int, seed: int, length: tuple[int, ...] = (128,), copies: int = 2
) -> Iterator[Example]:
    """Prompts of `length` tokens in all, BOS included."""
    for k in range(examples):
        place, _ = cell(k, length=length)
        room = vocab.room(place["length"], least=2 * max(copies, 2), name="repeats")
        period = room // max(copies, 2)
        segment = draw(vocab.plain_ids, period, generator=stream("repeats", seed, k))
        ids = np.resize(segment, room)
        yield Example(
            id=f"repeats-{k}",
            token_ids=tuple(ids.tolist()),
            spans={"repeat": ((period, room),)},
            conditions={"length": place["length"], "period": period},
        )


def draw(plain_ids: np.ndarray, count: int, *, generator: np.random.Generator) -> np.ndarray:
    """`count` random ids, all different where there are enough of them."""
    return generator.choice(plain_ids, size=count, replace=count > len(plain_ids))
