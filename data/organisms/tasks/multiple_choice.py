"""Multiple choice with letters: a stated fact, four lettered options, answer with the letter.

'The cup is red. What colour is the cup? A blue, B red, C green, D white. Answer:' -> ' B'. The partner states the fact
of another option. Chance is 1/4.
"""

from __future__ import annotations

import random

from ..words import COLOURS, HELD_OUT_OBJECTS, LOCATIONS, OBJECTS, OPTIONS
from .prompt import Prompt, Split, templates_of

TEMPLATES = (
    ("The {object} is {value}. What colour is the {object}?", COLOURS),
    ("I have a {value} {object}. Which colour has the {object}?", COLOURS),
    ("Fact: the colour of the {object} is {value}. Which colour is it?", COLOURS),
    ("The {object} is in the {value}. Where is the {object}?", LOCATIONS),
    ("They left the {object} at the {value}. Where did they leave it?", LOCATIONS),
)
HELD_OUT_TEMPLATES = (
    ("She likes the {value} {object}. What colour is the {object}?", COLOURS),
    ("We saw the {object} near the {value}. Where was the {object}?", LOCATIONS),
)
CHANCE = 1 / len(OPTIONS)


def make(rng: random.Random, *, split: Split = "train") -> Prompt:
    """One question; options are distinct words of one kind in random order."""
    template, values = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    thing = rng.choice(templates_of(split, OBJECTS, HELD_OUT_OBJECTS))
    choices = rng.sample(values, len(OPTIONS))
    listed = ", ".join(f"{letter} {choice}" for letter, choice in zip(OPTIONS, choices, strict=True))
    right, wrong, *others = rng.sample(range(len(OPTIONS)), len(OPTIONS))

    def ask(index: int) -> str:
        return f"{template.format(object=thing, value=choices[index])} {listed}. Answer:"

    return Prompt(
        task="multiple_choice",
        text=ask(right),
        answer=f" {OPTIONS[right]}",
        wrong_answers=tuple(f" {OPTIONS[index]}" for index in (wrong, *others)),
        corrupted=ask(wrong),
        conditions={"template": template, "letter": OPTIONS[right]},
    )
