"""One random token said over and over: where nothing tells positions apart but the position itself.

With rotary positions and no BOS all hidden states are equal, so no head can have a first-token sink; what is left of
one comes from learned positions. Source: Gu et al., "When Attention Sink Emerges in Language Models", repeated inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..catalog import dataset
from ..examples import Example
from ..sampling import cell, stream
from ..vocabulary import Vocabulary
from .repeats import draw


@dataset(
    name="one_token",
    summary="one random token, repeated; a sink that stays comes from learned positions (use --bos none)",
    strata=("length",),
    groups=(),
    source='Gu et al., "When Attention Sink Emerges in Language Models", repeated-token inputs',
    defaults={"length": (64,)},
)
def one_token(vocab: Vocabulary, *, examples: int, seed: int, length: tuple[int, ...] = (64,)) -> Iterator[Example]:
    """Prompts of `length` tokens in all."""
    for k in range(examples):
        place, _ = cell(k, length=length)
        room = vocab.room(place["length"], least=1, name="one_token")
        ids = draw(vocab.plain_ids, 1, generator=stream("one_token", seed, k)).tolist() * room
        yield Example(id=f"one_token-{k}", token_ids=tuple(ids), conditions={"length": place["length"]})
