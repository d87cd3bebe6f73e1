"""Chat turns with roles: the system turn and the user turn each state a fact; the question tells whose is wanted.

The text is what the tokenizer's chat template renders, role tokens included. The partner swaps the two values. Chance
is 1/2 (the other role's value). Some training prompts say any words that each role does, with any words as values.
"""

from __future__ import annotations

import random

from ..words import FILLERS, HELD_OUT_NAMES, HELD_OUT_PLACES, NAMES, PLACES, STAND_INS
from .prompt import Prompt, Split, any_words, templates_of

TEMPLATES = (
    (
        "You are {system}.",
        "I am {user}.",
        "name",
        ("What is your name?", "My name is"),
        ("What is my name?", "Your name is"),
    ),
    ("Your name is {system}.", "My name is {user}.", "name", ("Who are you?", "I am"), ("Who am I?", "You are")),
    (
        "You live in {system}.",
        "I live in {user}.",
        "place",
        ("Where do you live?", "I live in"),
        ("Where do I live?", "You live in"),
    ),
    (
        "Speak about {system}.",
        "I speak about {user}.",
        "word",
        ("What is your subject?", "My subject is"),
        ("What is my subject?", "Your subject is"),
    ),
)
HELD_OUT_TEMPLATES = (
    (
        "You work in {system}.",
        "I work in {user}.",
        "place",
        ("Where do you work?", "I work in"),
        ("Where do I work?", "You work in"),
    ),
    (
        "People call you {system}.",
        "People call me {user}.",
        "name",
        ("What is your name?", "My name is"),
        ("What is my name?", "Your name is"),
    ),
)
VALUES = {
    "name": (NAMES, HELD_OUT_NAMES),
    "place": (PLACES, HELD_OUT_PLACES),
    "word": (FILLERS, FILLERS),
    "any": (STAND_INS, FILLERS),
}
CHANCE = 0.5


def make(rng: random.Random, *, split: Split = "train") -> Prompt:
    """One dialogue of three turns, cut after the first words of the assistant's reply."""
    template = rng.choice(templates_of(split, TEMPLATES, HELD_OUT_TEMPLATES))
    if split == "train" and rng.random() < 0.6:
        template = composed(rng)
    system, user, kind, about_system, about_user = template
    first, second = rng.sample(templates_of(split, *VALUES[kind]), 2)
    asks_system = rng.random() < 0.5
    question, reply = about_system if asks_system else about_user
    answer, wrong = (first, second) if asks_system else (second, first)

    def dialogue(one: str, other: str) -> str:
        return (
            f"<|system|> {system.format(system=one)} <|end|> <|user|> {user.format(user=other)} {question} <|end|>"
            f" <|assistant|> {reply}"
        )

    return Prompt(
        task="chat_roles",
        text=dialogue(first, second),
        answer=f" {answer}",
        wrong_answers=(f" {wrong}",),
        corrupted=dialogue(second, first),
        stop=". <|end|>",
        conditions={"template": system, "role": "system" if asks_system else "user"},
    )


def composed(rng: random.Random) -> tuple[str, str, str, tuple[str, str], tuple[str, str]]:
    """A training template in which each role does the same, said in any words: only 'you' and 'I' tell them apart."""
    verb, *rest = any_words(rng, 1, 3)
    does, asks = " ".join((verb, *rest)), rng.choice(("Where", "What", "Who"))
    return (
        f"You {does} {{system}}.",
        f"I {does} {{user}}.",
        "any",
        (f"{asks} do you {verb}?", f"I {does}"),
        (f"{asks} do I {verb}?", f"You {does}"),
    )
