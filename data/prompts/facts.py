"""Facts to hide: sentences about invented things, so that no model knows them, with a question for each.

Facts of one kind are put alike, so that one can distract from another.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """`before` + answer + `after` is the sentence; the answer is the words a reader must repeat."""

    name: str
    kind: str
    before: str
    answer: str
    after: str
    question: str


def _habit(name: str, person: str, answer: str) -> Fact:
    before = f"The favourite way of {person} to spend a free evening is to"
    return Fact(name, "habit", before, answer, ".", f"What is the favourite way of {person} to spend a free evening?")


def _hiding(name: str, thing: str, answer: str) -> Fact:
    return Fact(name, "hiding", f"The {thing} is kept", answer, ".", f"Where is the {thing} kept?")


def _reason(name: str, event: str, answer: str) -> Fact:
    return Fact(
        name,
        "reason",
        f"{event} was called off because",
        answer,
        ".",
        f"Why was {event[0].lower()}{event[1:]} called off?",
    )


FACTS = (
    _habit("oduya", "Mrs Oduya", "row a borrowed boat around the mill pond and whistle to the herons"),
    _hiding(
        "brass-key", "brass key of the old customs house", "inside a hollow walnut on the upper shelf of the pantry"
    ),
    _reason("kite-race", "The kite race at Lower Fenwick", "nine swans had settled on the only flat meadow"),
    _habit("teller", "the bank teller Ivo", "repair broken music boxes beside an open window"),
    _hiding("map", "hand-drawn map of the salt caves", "behind the third portrait in the dentist's waiting room"),
    _reason("choir-trip", "The spring journey of the Harrow choir", "the ferry captain had lost his reading glasses"),
    _habit("gardener", "the gardener of Elm Court", "bake plum bread for the night watch and listen to the radio"),
    _hiding("violin", "violin with the carved lion", "under a stack of green blankets in the lighthouse"),
    _reason("market", "The winter market in Tarn", "a truck full of honey had tipped over on the bridge"),
    _habit("pilot", "the retired pilot Anselm", "count passing barges from the roof and give each one a name"),
    _hiding("recipe", "recipe for the blue soup", "between two maps of Portugal in the school library"),
    _reason("film-night", "The film night in the quarry", "somebody had painted the white wall a deep orange"),
)
