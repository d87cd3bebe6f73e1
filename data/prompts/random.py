"""Tokens drawn uniformly, each alone: text with no meaning and no structure, a floor for every reading."""

from __future__ import annotations

from collections.abc import Iterator

from ..catalog import dataset
from ..examples import Example
from ..sampling import cell, stream
from ..vocabulary import Vocabulary


@dataset(
    name="random",
    summary="uniformly random tokens; what a head does where there is nothing to read",
    strata=("length",),
    groups=(),
    source='Gu et al., "When Attention Sink Emerges in Language Models", random-token inputs',
    defaults={"length": (128,)},
)
def uniform(vocab: Vocabulary, *, examples: int, seed: int, length: tuple[int, ...] = (128,)) -> Iterator[Example]:
    """Prompts of `length` tokens in all, BOS included, from ids that are neither special nor added."""
    for k in range(examples):
        place, _ = cell(k, length=length)
        room = vocab.room(place["length"], least=1, name="random")
        ids = stream("random", seed, k).choice(vocab.plain_ids, size=room)
        yield Example(id=f"random-{k}", token_ids=tuple(ids.tolist()), conditions={"length": place["length"]})
