"""Needles with distractors: a note with a four-word secret in a haystack of sentences, asked for at the end.

'... Note: the code of Boston is oak plum jade swan. ... the code of Boston is' -> ' oak plum jade swan'. Up to three
distractor notes give the same kind of secret of other places. `depth` 0 puts the note first, 1 last. Half of the
training prompts uses any words in place of places, and a third a frame of any words, so that the rule is learnt and no
list of places or frames. One word stands between a place and its secret: that far a model of this size binds them.
Guessing four words right has no chance worth stating.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..words import FILLERS, HELD_OUT_PLACES, HELD_OUT_SECRETS, PLACES, SECRETS, STAND_INS
from .english import sentence
from .prompt import Prompt, Split, any_words, templates_of

TEMPLATES = (
    (
        "Note: the {secret} of {place} is {words}.",
        "Question: what is the {secret} of {place}? Answer: the {secret} of {place} is",
    ),
    ("Remember that the {secret} for {place} is {words}.", "The {secret} for {place} is"),
    (
        "The {secret} kept in {place} is {words}.",
        "Tell me the {secret} kept in {place}. The {secret} kept in {place} is",
    ),
    ("Listen: the {secret} at {place} was {words}.", "Now, the {secret} at {place} was"),
    (
        "It is said that the {secret} at {place} is {words}.",
        "What is the {secret} at {place}? The {secret} at {place} is",
    ),
    (
        "The {secret} they use in {place} is {words}.",
        "Question: what do they use in {place}? Answer: The {secret} they use in {place} is",
    ),
    ("Do not lose the {secret} near {place}: {words}.", "Now, the {secret} near {place}:"),
    ("People have the {secret} of {place}: {words}.", "Tell me what people have. People have the {secret} of {place}:"),
)
HELD_OUT_TEMPLATES = (
    (
        "Take note: the {secret} from {place} is {words}.",
        "Question: what is the {secret} from {place}? Answer: the {secret} from {place} is",
    ),
    (
        "Listen again, for all people the {secret} behind {place} was {words}.",
        "Tell me again, for all people the {secret} behind {place} was",
    ),
    (
        "A friend knew the {secret} under {place}: {words}.",
        "Which {secret} was it? A friend knew the {secret} under {place}:",
    ),
    ("Today {place} has {words}, as a {secret}.", "Which {secret} do they have? Today {place} has"),
)
FAR_TEMPLATES = (
    ("Do not forget that in {place} they use the {secret} {words}.", "Now, in {place} they use the {secret}"),
    ("Today they have the {secret} of {place}, it is {words}.", "Today they have the {secret} of {place}, it is"),
    ("From {place} came the {secret} {words}.", "What came from {place}? From {place} came the {secret}"),
)
"""Three or four tokens between the place and the answer, where every training frame has one: a negative control."""
LEADS = ("Note: ", "Remember that ", "Listen: ", "It is said that ", "Here ", "Fact: ", "")
RELATIONS = ("of", "for", "at", "in", "kept in", "they use in", "near", "under", "behind")
COPULAS = ("is", "was", "has", "gave")
QUESTIONS = (
    "Question: what is the {secret} {relation} {place}? Answer: ",
    "Tell me: ",
    "What is it? ",
    "Now, ",
    "Answer: ",
    "",
)
ANSWER_WORDS = 4


def make(
    rng: random.Random,
    *,
    count_tokens: Callable[[str], int],
    length: int,
    split: Split = "train",
    depth: float = 0.5,
    distractors: int = 1,
    templates: Sequence[tuple[str, str]] = HELD_OUT_TEMPLATES,
) -> Prompt:
    """One prompt of at most `length` tokens with BOS, prompt and answer; the haystack fills what the notes leave.

    `templates` are those of the held-out split.
    """
    note, question = rng.choice(templates_of(split, TEMPLATES, templates))
    if split == "train" and rng.random() < 0.75:
        note, question = rng.choice((composed, meaningless))(rng)
    places = STAND_INS if split == "train" and rng.random() < 0.5 else templates_of(split, PLACES, HELD_OUT_PLACES)
    secret = rng.choice(templates_of(split, SECRETS, HELD_OUT_SECRETS))
    if split == "train" and rng.random() < 0.3:
        secret = rng.choice(FILLERS)
    names = rng.sample(places, distractors + 1)
    answers = {name: " ".join(rng.sample(FILLERS, ANSWER_WORDS)) for name in names}
    notes = {name: note.format(secret=secret, place=name, words=answers[name]) for name in names}
    asked = [question.format(secret=secret, place=name) for name in names]
    turns = tuple((f" {asked[index]}", f" {answers[names[index]]}") for index in range(1, min(len(names), 3)))
    fixed = (
        [*notes.values(), asked[0], *(text for text, _ in turns)] if split == "train" else [*notes.values(), asked[0]]
    )
    spent = sum(map(count_tokens, fixed)) + (ANSWER_WORDS + 1) * (1 + len(turns) * (split == "train")) + 1
    hay = haystack(rng, length - spent, count_tokens, split)
    at = round(depth * len(hay))
    placed = [(at, 0, notes[names[0]])] + [(rng.randint(0, len(hay)), 1, notes[name]) for name in names[1:]]
    for index, _, text in sorted(placed, reverse=True):
        hay.insert(index, text)
    return Prompt(
        task="needle",
        text=" ".join([*hay, asked[0]]),
        answer=f" {answers[names[0]]}",
        wrong_answers=tuple(f" {answers[name]}" for name in names[1:]),
        turns=turns,
        stop=".",
        conditions={"length": length, "depth": depth, "distractors": distractors, "template": note},
    )


def haystack(rng: random.Random, budget: int, count_tokens: Callable[[str], int], split: Split) -> list[str]:
    """Sentences of at most `budget` tokens in all."""
    sentences: list[str] = []
    while budget > 0:
        text = sentence(rng, split=split)
        budget -= count_tokens(text)
        if budget >= 0:
            sentences.append(text)
    return sentences


def composed(rng: random.Random) -> tuple[str, str]:
    """A training frame put together at random; one in four of its words gives way to any plain word."""

    def some(words: tuple[str, ...], noise: str = "{}") -> str:
        return noise.format(rng.choice(FILLERS)) if rng.random() < 0.25 else rng.choice(words)

    relation = some(RELATIONS)
    body = f"the {{secret}} {relation} {{place}} {some(COPULAS)}"
    question = rng.choice(QUESTIONS).replace("{relation}", relation)
    return f"{some(LEADS, '{} ')}{body} {{words}}.", question + body


def meaningless(rng: random.Random) -> tuple[str, str]:
    """A training frame of any words, with one between the place and the answer."""
    lead = [*any_words(rng, 0, 3), "{secret}", *any_words(rng, 0, 2), "{place}"]
    after = rng.choice((*COPULAS, *any_words(rng, 1, 1)))
    cue = " ".join([*lead[rng.randint(0, len(lead) - 1) :], after])
    question = [*any_words(rng, 1, 4), rng.choice(("{place}", "{secret}", "it")) + "?"] if rng.random() < 0.4 else []
    return " ".join([*lead, after, "{words}."]), " ".join([*question, cue])
