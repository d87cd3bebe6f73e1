"""Prompts with the model's own greedy answers in place of the given ones.

What heads do while a right answer is forced upon a model need not be what they do when it answers. So answers can be
generated first; one forward over prompt and response then reads every step, for a causal model sees the same keys at
each of them as it did while decoding. Source of the rules: Wu et al., "Retrieval Head Mechanistically Explains
Long-Context Factuality", code: greedy, 50 tokens at most, up to the first line break; a prompt counts as answered where
the response holds more than half of the answer's words (ROUGE-1 recall, here of lower-case words without stemming).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..data.catalog import Dataset
from ..data.encode import encode
from ..data.errors import UserError
from ..data.examples import Example
from ..data.frame import find_frame
from ..data.jsonl import digest_of
from ..data.tokens import TokenBatch
from .generation import end_ids, generate
from .models import Model

LIMIT = 50
"""Tokens of a response at most."""
ANSWERED = 0.5
"""A response with a larger share of the answer's words has answered."""
LINE_BREAKS = ("\n", "\u010a", "<0x0A>")
"""How the pieces of tokenizers spell one."""
ANSWERS = ("given", "own", "right")
"""The answers as they are; the model's own; its own where they are right."""
Report = Callable[[int], object]


def answered(model: Model, data: Dataset, answers: str, *, bos: str, batch_tokens: int, report: Report) -> Dataset:
    """The data set with each answer replaced by what the model says; with `right`, prompts it fails are left out."""
    if answers not in ANSWERS:
        raise UserError(f"expected answers {', '.join(ANSWERS)}; came {answers!r}")
    if answers == "given":
        return data
    if not any(example.answer or example.answer_ids for example in data.examples):
        raise UserError(f"data set {data.name!r} has no answers; --answers {answers} takes one that asks something")
    said: list[tuple[int, ...]] = []
    for start, stop in _batches(model, data.examples, bos=bos, budget=batch_tokens):
        asked = continued(model, data.examples[start:stop], bos=bos)
        said += generate(model, asked, max_new_tokens=LIMIT, stop=stop_ids(model)).responses
        report(stop)
    made = [_with(model, example, ids) for example, ids in zip(data.examples, said, strict=True)]
    kept = [one for one in made if answers == "own" or one.conditions["answered"]]
    if not kept:
        raise UserError(f"{model.name} answers none of the {len(made)} prompts of {data.spec!r}; use --answers own")
    return replace(data, examples=kept, digest=digest_of(kept))


def recall(expected: str, response: str) -> float:
    """Share of the expected words that the response holds, each as often as it is expected."""
    wanted, found = (Counter(re.findall(r"\w+", text.lower())) for text in (expected, response))
    return sum((wanted & found).values()) / max(1, sum(wanted.values()))


def _with(model: Model, example: Example, ids: tuple[int, ...]) -> Example:
    expected = example.answer if example.answer is not None else _text(model, example.answer_ids or ())
    share = recall(expected, _text(model, ids))
    said = {"answered": share > ANSWERED, "recall": round(share, 4)}
    return replace(example, answer=None, answer_ids=ids, conditions={**example.conditions, **said})


def _text(model: Model, ids: Sequence[int]) -> str:
    return " ".join(map(str, ids)) if model.tokenizer is None else model.tokenizer.decode(list(ids))


def _batches(model: Model, examples: Sequence[Example], *, bos: str, budget: int) -> list[tuple[int, int]]:
    """(first, behind the last) of consecutive prompts that fit a forward of `budget` tokens together."""
    lengths = [int(continued(model, [one], bos=bos).input_ids.shape[1]) + LIMIT for one in examples]  # type: ignore[union-attr]
    found, start = [], 0
    for stop in range(1, len(lengths) + 1):
        if stop == len(lengths) or max(lengths[start : stop + 1]) * (stop + 1 - start) > budget:
            found.append((start, stop))
            start = stop
    return found


def continued(model: Model, examples: Sequence[Example], *, bos: str) -> TokenBatch:
    """The batch of these prompts for a model to go on with: no answers, nor what a tokenizer puts behind a text."""
    asked = [replace(example, answer=None, answer_ids=None) for example in examples]
    made = encode(asked, model.tokenizer, bos=bos)
    assert made.query_mask is not None and made.lengths is not None
    kept = made.lengths - len(find_frame(model.tokenizer, bos=bos).suffix)
    before = torch.arange(made.query_mask.shape[1]) < kept[:, None]
    return replace(made, query_mask=made.query_mask & before, lengths=kept)


def stop_ids(model: Model) -> list[int]:
    """Ids that end a response: end of sequence and line breaks; the full stop where a tokenizer has no line break."""
    ends = end_ids(model)
    vocabulary = {} if model.tokenizer is None else model.tokenizer.get_vocab()
    breaks = {one for piece, one in vocabulary.items() if any(mark in piece for mark in LINE_BREAKS)}
    return sorted(ends | (breaks or {vocabulary[piece] for piece in (".",) if piece in vocabulary}))
