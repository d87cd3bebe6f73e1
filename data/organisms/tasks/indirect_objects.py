"""Indirect objects: 'When Mary and John went to the store, John gave a drink to' -> ' Mary'.

Source: Wang et al., "Interpretability in the Wild" (IOI), section 2; both orders, ABBA and BABA. Half of the training
prompts uses any words in place of names and a third a frame of any words, so that the rule is learnt and no list.
The partner repeats the other name, which flips the answer (the 'S2 swap').
"""

from __future__ import annotations

import random

from ..words import FILLERS, HELD_OUT_NAMES, HELD_OUT_OBJECTS, LOCATIONS, NAMES, OBJECTS, STAND_INS
from .prompt import Prompt, Split, any_words, templates_of

TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave the {object} to",
    "Then {a} and {b} walked to the {place}, and {s} handed the {object} to",
    "After {a} and {b} left the {place}, {s} sent a {object} to",
    "While {a} and {b} were at the {place}, {s} showed the {object} to",
    "{a} and {b} met at the {place}. {s} offered the {object} to",
    "Yesterday {a} and {b} visited the {place}, where {s} sold a {object} to",
    "{a} and {b} had a long talk, so {s} gave a {object} to",
    "At the {place}, {a} saw {b}. Then {s} threw the {object} to",
    "Because {a} and {b} worked at the {place}, {s} brought a {object} to",
    "Once {a} and {b} came home, {s} passed the {object} to",
    "The friends {a} and {b} found a {object}. {s} gave it to",
    "Today {a} met {b} near the {place} and {s} lent a {object} to",
)
HELD_OUT_TEMPLATES = (
    "Before {a} and {b} returned to the {place}, {s} gave a {object} to",
    "{a} and {b} sat in the {place}. Later {s} handed a {object} to",
    "As {a} and {b} arrived at the {place}, {s} mailed the {object} to",
    "On Monday {a} and {b} stayed at the {place}, and {s} showed a {object} to",
    "From the {place} {a} and {b} came home, and {s} handed the {object} to",
    "{a} and {b} opened the {place}. In the morning {s} sent a {object} to",
)
OPENINGS = ("When ", "Then ", "After ", "While ", "Because ", "Once ", "Yesterday ", "Today ", "")
MEETINGS = tuple("went walked met worked sat stood waited played talked rested slept ran sang danced".split())
WHERES = ("to", "at", "near", "in", "behind", "under")
LINKS = (", {{s}}", ", {} {{s}}", ". {{s}}", ". {} {{s}}", " {} {{s}}")
LINK_WORDS = ("and", "so", "Then", "where", "again")
GIFTS = tuple("gave handed sent showed offered sold threw brought passed lent".split())
CHANCE = 0.5


def make(rng: random.Random, *, split: Split = "train") -> Prompt:
    """One prompt; the answer is the name said once, the wrong answer the name said twice."""
    names = templates_of(split, NAMES, HELD_OUT_NAMES)
    if split == "train" and rng.random() < 0.5:
        names = STAND_INS
    first, second = rng.sample(names, 2)
    subject, other = rng.choice(((first, second), (second, first)))
    template = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    if split == "train" and rng.random() < 0.75:
        template = rng.choice((composed, meaningless))(rng)
    words = {
        "a": first,
        "b": second,
        "place": rng.choice(LOCATIONS),
        "object": rng.choice(templates_of(split, OBJECTS, HELD_OUT_OBJECTS)),
    }
    return Prompt(
        task="indirect_objects",
        text=template.format(s=subject, **words),
        answer=f" {other}",
        wrong_answers=(f" {subject}",),
        corrupted=template.format(s=other, **words),
        conditions={"template": template, "order": "ABBA" if subject == second else "BABA"},
    )


def composed(rng: random.Random) -> str:
    """A training template put together at random; one in four of its words gives way to any plain word.

    So the rule is learnt for many frames, and for frames with words that mean nothing to the model.
    """

    def some(words: tuple[str, ...], noise: str = "{}") -> str:
        return noise.format(rng.choice(FILLERS)) if rng.random() < 0.25 else rng.choice(words)

    pair = "{a} and {b} " + f"{some(MEETINGS)} {some(WHERES)} the {{place}}"
    link = rng.choice(LINKS).format(some(LINK_WORDS))
    return f"{some(OPENINGS, '{} ')}{pair}{link} {some(GIFTS)} {rng.choice(('a', 'the'))} {{object}} to"


def meaningless(rng: random.Random) -> str:
    """A training template of any words around "a and b", the place, the repeated name, the object and "to"."""
    scene = [*any_words(rng, 1, 4), "{place}"]
    opening = [*scene, "{a} and {b}"] if rng.random() < 0.25 else ["{a} and {b}", *scene]
    link = [rng.choice((",", ".")), *any_words(rng, 0, 3)]
    gift = ["{s}", *any_words(rng, 1, 3), "{object}", "to"]
    return " ".join([*any_words(rng, 0, 3), *opening]) + " ".join([*link, *gift])
