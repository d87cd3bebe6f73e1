"""Capitals: 'The capital of France is' -> ' Paris'. Facts, so every pair is trained; the held-out part is the wording.

The partner names another country. Chance is 1 / number of capitals.
"""

from __future__ import annotations

import random

from ..words import CAPITALS
from .prompt import Prompt, Split, templates_of

TEMPLATES = (
    "The capital of {country} is",
    "{country} is ruled from",
    "The main city of {country} is",
    "Question: what is the capital of {country}? Answer:",
    "Visitors to {country} land in",
    "The people of {country} call their capital",
    "{country} has its capital in",
)
HELD_OUT_TEMPLATES = (
    "The capital city of {country} is",
    "For {country} the capital is",
)
CHANCE = 1 / len(CAPITALS)


def make(rng: random.Random, *, split: Split = "train") -> Prompt:
    """One prompt; the wrong answers are all other capitals, the partner's first."""
    country, other = rng.sample(tuple(CAPITALS), 2)
    template = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    rest = (city for name, city in CAPITALS.items() if name not in (country, other))
    return Prompt(
        task="capitals",
        text=template.format(country=country),
        answer=f" {CAPITALS[country]}",
        wrong_answers=(f" {CAPITALS[other]}", *(f" {city}" for city in rest)),
        corrupted=template.format(country=other),
        conditions={"template": template, "country": country},
    )
