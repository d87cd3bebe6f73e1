"""Documents in every order of a cycle: where in the prompt a head reads, apart from what stands there.

`documents` documents of about the same length, each with a note, stand one after the other; a question at the end asks
for the note of one of them. The examples of a cluster are the cyclic permutations of the same documents, so that each
document stands once in each slot. The labels `slot1`, `slot2`, ... cover the documents by place, `needle` the four
words asked for inside its slot; the condition `slot` is where these stand. An opening sentence comes first, so that the
first token, which many heads read for no reason of its content, is in no slot. A prompt has `length` tokens at most.
Source: Liu et al., "Lost in the Middle", section 2 (multi-document question answering by position), with documents of
our own; cyclic orders, so position is crossed with document but not with which document comes before which.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..catalog import dataset
from ..errors import DataError
from ..examples import Example
from ..groups import SLOTS
from ..sampling import cell
from ..vocabulary import Vocabulary
from .notes import Note, draw_notes, random_of, surrounded

OPENING = "Listen to what people said."
Document = tuple[str, tuple[int, int]]
"""A text and where its secret stands in it."""


@dataset(
    name="slots",
    summary="documents in cyclic orders, one with the answer; what is read by place, what is lost in the middle",
    strata=("length", "slot"),
    groups=("user", "needle", "answer", *SLOTS),
    source='Liu et al., "Lost in the Middle: How Language Models Use Long Contexts"',
    defaults={"lengths": (256,), "documents": 5},
)
def slots(
    vocab: Vocabulary, *, examples: int, seed: int, lengths: tuple[int, ...] = (256,), documents: int = 5
) -> Iterator[Example]:
    """Prompts of at most each of `lengths` tokens; every `documents` examples of a length are one cluster."""
    if not 2 <= documents <= len(SLOTS):
        raise DataError(f"slots: expected 2 to {len(SLOTS)} documents; came {documents}")
    for k in range(examples):
        place, repetition = cell(k, slot=range(1, documents + 1), length=lengths)
        made, asked = _documents(vocab, seed, repetition, place["length"], documents)
        text, spans = _laid_out(made, asked, slot=place["slot"])
        yield Example(
            id=f"slots-{place['length']}-{repetition}-{place['slot']}",
            text=text,
            spans=spans,
            answer=f" {asked.words}",
            cluster=f"slots/{repetition}",
            conditions={**place, "documents": documents, "frame": asked.frame},
        )


def _documents(
    vocab: Vocabulary, seed: int, repetition: int, length: int, documents: int
) -> tuple[list[Document], Note]:
    """The documents of a cluster, the one that is asked for first, and its note."""
    rng = random_of("slots", seed, repetition)
    notes = draw_notes(rng, documents)
    asked = notes[0]
    spent = vocab.count(" ".join([OPENING, *(note.text for note in notes), asked.question, asked.words]))
    each = (vocab.room(length, least=spent, name="slots") - spent) // documents
    made = []
    for note in notes:
        text, (place,) = surrounded(rng, [note], budget=each, count_tokens=vocab.count)
        made.append((text, place))
    return made, asked


def _laid_out(
    documents: list[Document], asked: Note, *, slot: int
) -> tuple[str, dict[str, tuple[tuple[int, int], ...]]]:
    """The prompt with the first document in `slot` and the others after it in their order, round the end; its spans."""
    turned = [documents[(index - slot + 1) % len(documents)] for index in range(len(documents))]
    spans: dict[str, tuple[tuple[int, int], ...]] = {}
    at = len(OPENING) + 1
    for number, (text, (start, end)) in enumerate(turned, 1):
        spans[f"slot{number}"] = ((at, at + len(text)),)
        if number == slot:
            spans["needle"] = ((at + start, at + end),)
        at += len(text) + 1
    prompt = " ".join([OPENING, *(text for text, _ in turned), asked.question])
    return prompt, {"user": ((0, len(prompt)),), **spans}
