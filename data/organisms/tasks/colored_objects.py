"""Coloured objects: 'there is a red cup, a blue pen ... What colour is the pen? The pen is' -> ' blue'.

Source: BIG-bench "reasoning about colored objects", as used in Merullo et al., "Circuit Component Reuse"; here with two
to four objects, the colour before its object. The partner asks about another object. Chance is 1 / number of objects.
"""

from __future__ import annotations

import random

from ..words import COLOURS, HELD_OUT_OBJECTS, OBJECTS
from .prompt import Prompt, Split, shuffled, templates_of

TEMPLATES = (
    ("On the table there is {list}.", " What colour is the {object}? The {object} is"),
    ("I see {list}.", " The colour of the {object} is"),
    ("The box holds {list}.", " The {object} is"),
    ("Here we have {list}.", " Question: what is the colour of the {object}? Answer:"),
    ("She bought {list}.", " What colour was the {object}? The {object} was"),
)
HELD_OUT_TEMPLATES = (
    ("In the room there is {list}.", " What colour is the {object}? The {object} is"),
    ("He found {list}.", " Which colour has the {object}? The {object} is"),
)


def make(rng: random.Random, *, split: Split = "train", objects: int | None = None) -> Prompt:
    """One prompt about `objects` (default: 2 to 4) things; training rows go on to ask for the others."""
    count = objects or rng.randint(2, 4)
    things = rng.sample(templates_of(split, OBJECTS, HELD_OUT_OBJECTS), count)
    colour_of = dict(zip(things, rng.sample(COLOURS, count), strict=True))
    scene, question = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    items = [f"a {colour_of[thing]} {thing}" for thing in things]
    text = scene.format(list=", ".join(items[:-1]) + " and " + items[-1])
    asked = shuffled(rng, things)
    return Prompt(
        task="colored_objects",
        text=text + question.format(object=asked[0]),
        answer=f" {colour_of[asked[0]]}",
        wrong_answers=tuple(f" {colour_of[thing]}" for thing in asked[1:]),
        corrupted=text + question.format(object=asked[1]),
        turns=tuple((question.format(object=thing), f" {colour_of[thing]}") for thing in asked[1:]),
        conditions={"template": scene, "objects": count},
    )
