"""Plain templated English, and two text domains to tell apart: encyclopaedia and source code.

These have no answer: every token is graded by its log-loss. English sentences are also the haystack of the needles.
"""

from __future__ import annotations

import random

from ..words import (
    ADJECTIVES,
    ANIMALS,
    CAPITALS,
    CODE_NAMES,
    COLOURS,
    LOCATIONS,
    NAMES,
    OBJECTS,
    PLACES,
    PREPOSITIONS,
    TOPICS,
    VERBS,
)
from .prompt import Split, templates_of

SENTENCES = (
    "The {adjective} {animal} {verb} {preposition} the {location}.",
    "A {animal} and a {other} {verb} together {preposition} the {location}.",
    "{name} put the {colour} {object} on the table.",
    "{name} has a {adjective} {animal}.",
    "It was a {adjective} day, and the {animal} {verb} again.",
    "There was a {object} {preposition} the {location}.",
    "In the morning {name} {verb} {preposition} the {location}.",
    "The {object} of the {adjective} {animal} was lost.",
    "Every {animal} likes the {location}.",
    "{name} said that the {location} was {adjective}.",
    "Nobody knew why the {animal} {verb}.",
    "My friend bought a {adjective} {object} in the {location}.",
)
HELD_OUT_SENTENCES = (
    "One {adjective} {animal} {verb} {preposition} the {location}.",
    "{name} and the {animal} {verb} all day.",
    "We saw a {colour} {object} {preposition} the {location}.",
    "The {location} was {adjective}, so the {animal} {verb}.",
)
ENCYCLOPAEDIA = (
    "{place} is a city in {country}.",
    "The city of {place} was founded in the year {century}{ending}.",
    "The {science} is studied at the museum of {place}.",
    "{country} is a country, and its capital is {capital}.",
    "It is known for its {food} and its {music}.",
    "The {sport} of {place} was built in {century}{ending}.",
)
HELD_OUT_ENCYCLOPAEDIA = (
    "{place} is known for its {food}, and {country} for its {music}.",
    "In {century}{ending} the museum of {place} bought a {science}.",
)
CODE = (
    "def {f} ( {x} , {y} ) : return {x} + {y}",
    "for {x} in range ( {y} ) : print ( {x} )",
    "if {x} = {y} : {f} = {x} - {y}",
    "while not {x} : {x} = {f} ( {y} )",
    "{x} = {f} ( {y} ) * {y}",
)
HELD_OUT_CODE = ("def {f} ( {x} ) : return {x} * {x}", "if not {x} : print ( {y} + {x} )")


def sentence(rng: random.Random, *, split: Split = "train") -> str:
    """One plain sentence, for example 'The old dog slept near the park.'"""
    animal, other = rng.sample(ANIMALS, 2)
    return rng.choice(templates_of(split, SENTENCES, HELD_OUT_SENTENCES)).format(
        animal=animal,
        other=other,
        adjective=rng.choice(ADJECTIVES),
        colour=rng.choice(COLOURS),
        location=rng.choice(LOCATIONS),
        name=rng.choice(NAMES),
        object=rng.choice(OBJECTS),
        preposition=rng.choice(PREPOSITIONS),
        verb=rng.choice(VERBS),
    )


def entry(rng: random.Random, *, split: Split = "train") -> str:
    """One sentence in the manner of an encyclopaedia."""
    country = rng.choice(tuple(CAPITALS))
    return rng.choice(templates_of(split, ENCYCLOPAEDIA, HELD_OUT_ENCYCLOPAEDIA)).format(
        place=rng.choice(PLACES),
        country=country,
        capital=CAPITALS[country],
        century=rng.randint(11, 19),
        ending=f"{rng.randrange(100):02d}",
        **{topic: rng.choice(words) for topic, words in TOPICS.items()},
    )


def code(rng: random.Random, *, split: Split = "train") -> str:
    """One line of code-like text, its tokens set apart by spaces."""
    f, x, y = rng.sample(CODE_NAMES, 3)
    return rng.choice(templates_of(split, CODE, HELD_OUT_CODE)).format(f=f, x=x, y=y)


DOMAINS = {"english": sentence, "encyclopaedia": entry, "code": code}
