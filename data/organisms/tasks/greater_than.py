"""Greater-than: 'The war lasted from the year 1732 to the year 17' -> any of 33..99.

Source: Hanna et al., "How does GPT-2 compute greater-than?". A year is two tokens, century and ending. The partner's
year ends in 01, its answer set is wide open. Chance is the share of the 100 endings that lie above.
"""

from __future__ import annotations

import random

from ..words import CENTURIES, EVENTS, HELD_OUT_EVENTS, YEAR_ENDINGS
from .prompt import Prompt, Split, templates_of

TEMPLATES = (
    "The {event} lasted from the year {century}{start} to the year {century}",
    "The {event} began in {century}{start} and ended in {century}",
    "From {century}{start} the {event} went on until {century}",
    "In {century}{start} the {event} opened, and it closed in {century}",
)
HELD_OUT_TEMPLATES = (
    "The {event} started in the year {century}{start} and finished in the year {century}",
    "The {event} ran from {century}{start} to {century}",
)


def make(rng: random.Random, *, split: Split = "train") -> Prompt:
    """One prompt; the training answer is drawn evenly from all later years of the century."""
    start = rng.randint(2, 97)
    template = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    words = {
        "event": rng.choice(templates_of(split, EVENTS, HELD_OUT_EVENTS)),
        "century": rng.choice(CENTURIES),
    }
    later = YEAR_ENDINGS[start + 1 :]
    return Prompt(
        task="greater_than",
        text=template.format(start=YEAR_ENDINGS[start], **words),
        answer=rng.choice(later),
        accepted=later,
        wrong_answers=YEAR_ENDINGS[: start + 1],
        corrupted=template.format(start="01", **words),
        conditions={"template": template, "start": start},
    )
