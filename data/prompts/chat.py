"""Short conversations through the model's own chat template, and the very same words as plain text.

System, user (a context passage), assistant, user (a question whose answer is in the passage), and the answer, which is
forced. With `template=yes` the measured model's template renders the four turns; with `no` their contents stand one
after the other, a blank between them, under the same labels. Both are one cluster and name each other as partners. The
passage has notes about several places: `needle` is the four words asked for, `distractor` those of the others. The
answer is said with a blank before it in both, so that its tokens are those of the needle. Source: Wang et al., "On the
Loss of Context-awareness in General Instruction Fine-tuning", which compares the two, with conversations of our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..catalog import dataset
from ..errors import DataError, NoTemplateError
from ..examples import Example
from ..sampling import cell
from ..vocabulary import Vocabulary
from .notes import MOST, draw_notes, random_of, surrounded

TEMPLATE = ("yes", "no")
SYSTEMS = (
    "You are a quick and clever friend.",
    "You work in the library of Boston.",
    "Tell people what they talked about.",
    "Your name is Mary and you work in the museum.",
    "You are old, and you have a brave dog.",
)
PASSAGES = ("Listen to what people said.", "Take note of what people said.", "Remember what people said.")
REPLIES = ("I have it all.", "I saw it all.", "It is known.", "Tell me what you have lost.")
Turn = tuple[str, str]
"""Role and content."""


@dataset(
    name="chat",
    summary="short conversations with and without the model's chat template; what the answer depends on",
    strata=("length", "template"),
    groups=("system", "user", "assistant", "template", "needle", "distractor", "answer"),
    source='Wang et al., "On the Loss of Context-awareness in General Instruction Fine-tuning"',
    defaults={"lengths": (128,), "template": TEMPLATE, "distractors": 1},
)
def chat(
    vocab: Vocabulary,
    *,
    examples: int,
    seed: int,
    lengths: tuple[int, ...] = (128,),
    template: tuple[str, ...] = TEMPLATE,
    distractors: int = 1,
) -> Iterator[Example]:
    """Conversations of at most each of `lengths` tokens, answer included; a template's own tokens come on top."""
    if not set(template) <= set(TEMPLATE) or not 0 <= distractors < MOST:
        raise DataError(
            f"chat: expected template of {', '.join(TEMPLATE)} and 0 to {MOST - 1} distractors; "
            f"came {'+'.join(template)} and {distractors}"
        )
    if "yes" in template and not getattr(vocab.tokenizer, "chat_template", None):
        raise NoTemplateError(
            "chat: expected a tokenizer with a chat template; this model has none. Measure a chat model, or the words "
            "alone with chat:template=no"
        )
    for k in range(examples):
        place, repetition = cell(k, template=template, length=lengths)
        turns, needle, others, answer, frame = _conversation(vocab, seed, repetition, place["length"], distractors)
        yield Example(
            id=_id(place["length"], repetition, place["template"]),
            **_prompt(turns, needle, others, rendered=place["template"] == "yes"),
            answer=f" {answer}",
            partner=next((_id(place["length"], repetition, one) for one in template if one != place["template"]), None),
            cluster=f"chat/{repetition}",
            conditions={**place, "frame": frame},
        )


def _id(length: int, repetition: int, template: str) -> str:
    return f"chat-{length}-{repetition}-{'chat' if template == 'yes' else 'plain'}"


def _conversation(
    vocab: Vocabulary, seed: int, repetition: int, length: int, distractors: int
) -> tuple[list[Turn], tuple[int, int], list[tuple[int, int]], str, str]:
    """The four turns, where in the passage the needle and the distractors stand, the answer, and the notes' frame."""
    rng = random_of("chat", seed, repetition)
    notes = draw_notes(rng, distractors + 1)
    system, opening, reply = rng.choice(SYSTEMS), rng.choice(PASSAGES), rng.choice(REPLIES)
    asked = notes[0]
    fixed = " ".join([system, opening, *(note.text for note in notes), reply, asked.question, asked.words])
    spent = vocab.count(fixed)
    room = vocab.room(length, least=spent, name="chat")
    passage, places = surrounded(rng, notes, budget=room - spent, count_tokens=vocab.count)
    shift = len(opening) + 1
    needle, *others = [(start + shift, end + shift) for start, end in places]
    turns = [("system", system), ("user", f"{opening} {passage}"), ("assistant", reply), ("user", asked.question)]
    return turns, needle, others, asked.words, asked.frame


def _prompt(
    turns: list[Turn], needle: tuple[int, int], others: list[tuple[int, int]], *, rendered: bool
) -> dict[str, Any]:
    """The prompt and its spans: messages, or their contents in one text with a blank between them."""
    gap = 0 if rendered else 1
    starts = [sum(len(content) + gap for _, content in turns[:index]) for index in range(len(turns))]
    spans: dict[str, list[tuple[int, int]]] = {}
    if not rendered:
        for (role, content), start in zip(turns, starts, strict=True):
            spans.setdefault(role, []).append((start, start + len(content)))
    spans["needle"] = [(needle[0] + starts[1], needle[1] + starts[1])]
    if others:
        spans["distractor"] = [(start + starts[1], end + starts[1]) for start, end in others]
    frozen = {label: tuple(pairs) for label, pairs in spans.items()}
    if rendered:
        return {"messages": tuple({"role": role, "content": content} for role, content in turns), "spans": frozen}
    return {"text": " ".join(content for _, content in turns), "spans": frozen}
