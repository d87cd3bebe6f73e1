"""What a model gets right, by teacher-forced argmax: repeats and prompts with answers.

An answer is exact when every one of its tokens is the argmax given the ones before it, which is when greedy decoding
would write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaForCausalLM

from ...data.organisms.rows import Encoder
from ...data.organisms.tasks import repeats
from ...data.organisms.tasks.prompt import Prompt
from ..batching import batch
from ..forward import observe
from ..loading import load
from .feeds import draw_batch
from .recipe import Feed, Stage


@dataclass(frozen=True)
class Grade:
    """One graded prompt. `preferred`: the right first token's logit is above every wrong answer's."""

    exact: bool
    preferred: bool | None


@torch.no_grad()
def repeat_hits(model: LlamaForCausalLM, encoder: Encoder, *, length: int, rows: int, seed: int) -> np.ndarray:
    """[row, graded token]: whether the argmax is right, from the second token of copy two to the end."""
    generator = np.random.default_rng([seed, length, 77])
    drawn = [
        repeats.repeat(generator, ids=encoder.ordinary, bos=encoder.bos, length=length + 1, segment=length // 2)
        for _ in range(rows)
    ]
    ids = torch.from_numpy(np.stack([tokens for tokens, _ in drawn]).astype(np.int64))
    graded = drawn[0][1]
    size = max(1, 8192 // length)
    predicted = torch.cat([model(input_ids=part, use_cache=False).logits.argmax(-1) for part in ids.split(size)])
    return (predicted[:, :-1] == ids[:, 1:]).numpy()[:, graded[1:]]


def best_induction(model: LlamaForCausalLM, encoder: Encoder, *, length: int, seed: int, rows: int = 16) -> float:
    """Highest mean induction mass of any head over the second copies of repeats of `length` tokens."""
    generator = np.random.default_rng([seed, length, 78])
    segment = length // 2
    units = np.stack([generator.choice(encoder.ordinary, size=segment, replace=False) for _ in range(rows)])
    ids = np.concatenate([np.full((rows, 1), encoder.bos), units, units], axis=1).astype(np.int64)
    wrapped = load((model, None), check=False)
    stats = observe(wrapped, batch(wrapped, torch.from_numpy(ids)), {"induction_mass"})
    return max(float(one["induction_mass"][:, :, segment + 1 :].mean((0, 2)).max()) for one in stats)


def repeat_accuracy(model: LlamaForCausalLM, encoder: Encoder, *, length: int, rows: int, seed: int) -> float:
    """Share of right tokens in the second copy of repeats of `length` tokens in all (BOS not counted)."""
    return float(repeat_hits(model, encoder, length=length, rows=rows, seed=seed).mean())


@torch.no_grad()
def family_accuracy(
    model: LlamaForCausalLM, encoder: Encoder, family: str, *, length: int, rows: int, seed: int
) -> float:
    """Share of the weighted targets of freshly drawn training rows whose argmax is right."""
    feed = Feed(length, 1.0, {family: 1.0})
    stage = Stage(name="gauge", layers=0, steps=1, feeds=(feed,), rate=0.0, tokens=rows * length)
    ids, weights = map(torch.from_numpy, draw_batch(encoder, stage, seed=seed + 1_000_000, step=0))
    predicted = model(input_ids=ids, use_cache=False).logits.argmax(-1)
    return float((predicted[:, :-1] == ids[:, 1:])[weights[:, 1:] > 0].float().mean())


@torch.no_grad()
def grade(model: LlamaForCausalLM, encoder: Encoder, prompts: Sequence[Prompt], *, tokens: int = 8192) -> list[Grade]:
    """One grade a prompt, in batches of about `tokens` padded on the right."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))
    grades: dict[int, Grade] = {}
    while order:
        longest = len(encoder.prompt(prompts[order[-1]])[0]) + 8
        taken = [order.pop() for _ in range(min(len(order), max(1, tokens // longest)))]
        grades.update(zip(taken, _grade_batch(model, encoder, [prompts[index] for index in taken]), strict=True))
    return [grades[index] for index in range(len(prompts))]


def _grade_batch(model: LlamaForCausalLM, encoder: Encoder, prompts: Sequence[Prompt]) -> list[Grade]:
    pairs = [encoder.prompt(prompt) for prompt in prompts]
    ids = torch.full((len(pairs), max(len(asked) + len(answer) for asked, answer in pairs)), encoder.pad)
    for row, (asked, answer) in enumerate(pairs):
        ids[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    grades = []
    for row, (prompt, (asked, answer)) in enumerate(zip(prompts, pairs, strict=True)):
        logits = model.lm_head(hidden[row, len(asked) - 1 : len(asked) + len(answer) - 1])
        grades.append(_grade_one(prompt, logits, answer, encoder))
    return grades


def _grade_one(prompt: Prompt, logits: torch.Tensor, answer: list[int], encoder: Encoder) -> Grade:
    if prompt.accepted:
        exact = int(logits[0].argmax()) in {encoder.extend(text)[0] for text in prompt.accepted}
        return Grade(exact=exact, preferred=None)
    exact = logits.argmax(-1).tolist() == answer
    wrong = [encoder.extend(text)[0] for text in prompt.wrong_answers]
    return Grade(exact=exact, preferred=bool(logits[0, answer[0]] > logits[0, wrong].max()) if wrong else None)
