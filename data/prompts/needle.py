"""A fact hidden in a long text, a question about it, and the answer in the words of the fact.

Grid: `lengths` x `depths`. A prompt is haystack, needle, distractors, question and answer, `length` tokens in all with
the BOS and the answer. Depth 0 puts the needle first and 1 last; it moves back to the end of a sentence, and the
condition `placed` says where it came to stand. The span `needle` covers the words the answer repeats, not the whole
sentence, so a head that copies every word of it scores 1; `distractor` covers the same words of a fact about another
thing; `user` is the rest. The same needle and haystack at every length and depth are one cluster. Source: Wu et al.,
"Retrieval Head Mechanistically Explains Long-Context Factuality", with texts of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..catalog import dataset
from ..errors import DataError
from ..examples import Example
from ..sampling import cell, stream
from ..vocabulary import Vocabulary
from .facts import FACTS, Fact
from .haystack import Haystack, read_haystack

OPENING = "Read this text; a question about it follows."
CLOSING = "\n\nQuestion: {question}\nAnswer:"


@dataclass(frozen=True)
class Piece:
    """Ids put into the haystack, and which of them [start, end) are the words that count."""

    label: str
    ids: list[int]
    start: int
    end: int


@dataset(
    name="needle",
    summary="a fact in a long text and a question about it; what retrieval heads copy",
    strata=("length", "depth"),
    groups=("user", "needle", "distractor", "answer"),
    source='Wu et al., "Retrieval Head Mechanistically Explains Long-Context Factuality"',
    defaults={"lengths": (512,), "depths": (0.0, 0.25, 0.5, 0.75, 1.0), "distractors": 1, "haystack": None},
)
def needle(
    vocab: Vocabulary,
    *,
    examples: int,
    seed: int,
    lengths: tuple[int, ...] = (512,),
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    distractors: int = 1,
    haystack: str | None = None,
) -> Iterator[Example]:
    """Prompts of each of `lengths` tokens with the needle at each of `depths`."""
    if not all(0 <= depth <= 1 for depth in depths) or not 0 <= distractors < len(FACTS):
        raise DataError(
            f"needle: expected depths in 0..1 and distractors in 0..{len(FACTS) - 1}; came {depths}, {distractors}"
        )
    hay = read_haystack(vocab, Path(haystack) if haystack else None)
    for k in range(examples):
        place, repetition = cell(k, length=lengths, depth=depths)
        fact = FACTS[repetition % len(FACTS)]
        make = partial(_prompt, vocab, hay, fact, generator=stream("needle", seed, repetition), distractors=distractors)
        ids, answer, spans, placed = make(length=place["length"], depth=place["depth"])
        yield Example(
            id=f"needle-{k}",
            token_ids=tuple(ids),
            spans=spans,
            answer=f" {fact.answer}",
            answer_ids=tuple(answer),
            cluster=f"{fact.name}/{repetition}",
            conditions={**place, "needle": fact.name, "placed": placed},
        )


def _prompt(
    vocab: Vocabulary,
    hay: Haystack,
    fact: Fact,
    *,
    length: int,
    depth: float,
    distractors: int,
    generator: np.random.Generator,
) -> tuple[list[int], list[int], dict[str, tuple[tuple[int, int], ...]], float]:
    """Ids without the answer, ids of the answer, spans, and the share of the haystack before the needle."""
    opening, closing = vocab.encode(OPENING), vocab.follow(CLOSING.format(question=fact.question))
    answer = vocab.follow(f" {fact.answer}")
    others = [other for other in FACTS if other.kind == fact.kind and other is not fact]
    chosen = [others[i] for i in generator.permutation(len(others))[:distractors]]
    if len(chosen) < distractors:
        raise DataError(f"needle: {distractors} distractors asked for, and {len(others)} facts are like {fact.name!r}")
    pieces = [_piece(vocab, fact, "needle"), *(_piece(vocab, other, "distractor") for other in chosen)]
    fixed = len(opening) + len(closing) + len(answer) + sum(len(piece.ids) for piece in pieces)
    room = vocab.room(length, least=fixed + hay.typical, name="needle") - fixed
    text, ends = hay.take(room, generator=generator)
    spots = [depth, *generator.random(distractors)]
    cuts = [max(end for end in ends if end <= spot * room) for spot in spots]
    ids, spans = _insert(text, pieces, cuts)
    whole = [*opening, *ids, *closing]
    moved = {label: tuple((a + len(opening), b + len(opening)) for a, b in pairs) for label, pairs in spans.items()}
    return whole, answer, {"user": ((0, len(whole)),), **moved}, round(cuts[0] / room, 4)


def _piece(vocab: Vocabulary, fact: Fact, label: str) -> Piece:
    """The fact as a sentence that follows other text, with the place of its answer."""
    before, words, after = vocab.follow(f" {fact.before}"), vocab.follow(f" {fact.answer}"), vocab.follow(fact.after)
    return Piece(label, [*before, *words, *after], len(before), len(before) + len(words))


def _insert(
    text: list[int], pieces: list[Piece], cuts: list[int]
) -> tuple[list[int], dict[str, tuple[tuple[int, int], ...]]]:
    """The text with each piece put in at its cut, and the spans of the pieces in the result."""
    ids: list[int] = []
    spans: dict[str, tuple[tuple[int, int], ...]] = {}
    last = 0
    for number in sorted(range(len(pieces)), key=lambda n: (cuts[n], n)):
        piece = pieces[number]
        ids += text[last : cuts[number]]
        found = (len(ids) + piece.start, len(ids) + piece.end)
        spans[piece.label] = (*spans.get(piece.label, ()), found)
        ids += piece.ids
        last = cuts[number]
    return ids + text[last:], spans
