"""Bigram-Backcopy: a Markov chain in which a few trigger tokens make the token before them come again.

On it a small model grows first-token sinks that let go at triggers (`organism:pico-sink` was trained on this very
chain). The span `other` marks the triggers. Source: Guo et al., "Active-Dormant Attention Heads", task BB.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..catalog import dataset
from ..examples import Example
from ..organisms.tasks.bigram_backcopy import sample, source
from ..sampling import cell, stream
from ..vocabulary import Vocabulary


@dataset(
    name="bigram_backcopy",
    summary="a bigram chain with triggers that copy; what active-dormant sinks were found on",
    strata=("length",),
    groups=("other",),
    source='Guo et al., "Active-Dormant Attention Heads", task BB',
    defaults={"length": (128,)},
)
def bigram_backcopy(
    vocab: Vocabulary, *, examples: int, seed: int, length: tuple[int, ...] = (128,)
) -> Iterator[Example]:
    """Prompts of `length` tokens in all, BOS included; the triggers carry the label `other`."""
    table = source(vocab.plain_ids)
    for k in range(examples):
        place, _ = cell(k, length=length)
        room = vocab.room(place["length"], least=3, name="bigram_backcopy")
        tokens, _ = sample(stream("bigram_backcopy", seed, k), table, rows=1, length=room + 1, bos=0)
        body = tokens[0, 1:]
        triggers = np.flatnonzero(table.is_trigger(body)).tolist()
        yield Example(
            id=f"bigram_backcopy-{k}",
            token_ids=tuple(body.tolist()),
            spans={"other": tuple((index, index + 1) for index in triggers)},
            conditions={"length": place["length"]},
        )
