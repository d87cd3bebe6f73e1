"""What pico-lm is certified for: repeats, needles by length and depth, every other task against its chance.

All prompts come from the held-out split (untrained templates, names, places, objects). Two accuracies:
    exact      every answer token is the argmax over the whole vocabulary
    preferred  the right answer's first token has a higher logit than every wrong answer's; `chance` refers to this
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from ...data.organisms.rows import Encoder, running_text
from ...data.organisms.tasks import english
from ...data.organisms.tasks.catalogue import (
    NEEDLE,
    NEEDLE_DEPTHS,
    NEEDLE_LENGTHS,
    NEEDLE_TARGET_LENGTHS,
    SHORT_TASKS,
    Task,
)
from ...data.organisms.tasks.needle import FAR_TEMPLATES
from ...data.organisms.tasks.prompt import Prompt, Split
from .gauges import Grade, grade, repeat_hits
from .intervals import row_bootstrap, wilson
from .sink_measures import english_batch, observe, sink_share

Row = dict[str, Any]
REPEAT_LENGTHS = (64, 128, 256, 512)
REPEAT_TARGET = 0.95


def measure_lm(model: LlamaForCausalLM, encoder: Encoder, *, scale: float = 1.0, seed: int = 10_000) -> list[Row]:
    """All rows of the certificate; `scale` multiplies the numbers of prompts."""
    model.eval()
    prompts = max(8, round(400 * scale))
    rows = [
        repeat_row(model, encoder, length=length, rows=max(4, round(100 * scale)), seed=seed)
        for length in REPEAT_LENGTHS
    ]
    rows += needle_rows(model, encoder, per_cell=max(1, round(30 * scale)), seed=seed, split="held_out")
    rows += needle_rows(model, encoder, per_cell=max(1, round(10 * scale)), seed=seed, split="train")
    rows += [
        far_row(model, encoder, length=length, prompts=max(8, round(120 * scale)), seed=seed) for length in (128, 256)
    ]
    for split in ("held_out", "train"):
        rows += [task_row(model, encoder, name, split=split, prompts=prompts, seed=seed) for name in SHORT_TASKS]
    rows += [domain_row(model, encoder, name, rows=max(4, round(60 * scale)), seed=seed) for name in english.DOMAINS]
    return [*rows, sink_row(model, encoder, rows=max(4, round(100 * scale)), seed=seed)]


def repeat_row(model: LlamaForCausalLM, encoder: Encoder, *, length: int, rows: int, seed: int) -> Row:
    """Accuracy on copy two of repeats of `length` tokens in all; the interval resamples rows."""
    hits = repeat_hits(model, encoder, length=length, rows=rows, seed=seed)
    low, high = row_bootstrap(hits)
    target = REPEAT_TARGET if length == 256 else None
    return _row("repeats", {"length": length}, hits.mean(), len(hits), low, high, 1 / len(encoder.ordinary), target)


def needle_rows(model: LlamaForCausalLM, encoder: Encoder, *, per_cell: int, seed: int, split: Split) -> list[Row]:
    """For each length a row over all depths and, held out, a row for each depth; 0 to 3 distractors in turn."""
    rows: list[Row] = []
    held_out = split == "held_out"
    for length in NEEDLE_LENGTHS:
        rng = random.Random(f"needle/{split}/{seed}/{length}")
        cells = [(depth, index % 4) for depth in NEEDLE_DEPTHS for index in range(per_cell)]
        prompts = [
            NEEDLE.make(rng, split=split, count_tokens=encoder.count, length=length, depth=depth, distractors=many)
            for depth, many in cells
        ]
        grades = grade(model, encoder, prompts)
        target = NEEDLE.target if held_out and length in NEEDLE_TARGET_LENGTHS else None
        said = NEEDLE.held_out if held_out else None
        rows.append(_share("needle", {"split": split, "length": length, "depth": "all"}, grades, 0.0, target, said))
        for depth in NEEDLE_DEPTHS if held_out else ():
            chosen = [graded for graded, (at, _) in zip(grades, cells, strict=True) if at == depth]
            where = {"split": split, "length": length, "depth": round(depth, 3)}
            rows.append(_share("needle", where, chosen, 0.0, None, None))
    return rows


def far_row(model: LlamaForCausalLM, encoder: Encoder, *, length: int, prompts: int, seed: int) -> Row:
    """Needles whose place stands three or four tokens before the answer, further than in any training frame."""
    rng = random.Random(f"needle_far/{seed}/{length}")
    made = partial(NEEDLE.make, rng, split="held_out", count_tokens=encoder.count, length=length)
    drawn = [made(depth=index % 10 / 9, distractors=index % 4, templates=FAR_TEMPLATES) for index in range(prompts)]
    row = _share("needle_far", {"split": "held_out", "length": length}, grade(model, encoder, drawn), 0.0, None, None)
    return row | {"note": "negative control: no frame of training has its place so far from the answer"}


def task_row(model: LlamaForCausalLM, encoder: Encoder, name: str, *, split: Split, prompts: int, seed: int) -> Row:
    """One short task; below or at chance it is marked as a negative control."""
    task = SHORT_TASKS[name]
    rng = random.Random(f"{name}/{split}/{seed}")
    drawn = [task.make(rng, split=split) for _ in range(prompts)]
    grades = grade(model, encoder, drawn)
    held_out = task.held_out if split == "held_out" else None
    target = task.target if split == "held_out" else None
    row = _share(name, {"split": split}, grades, _chance(task, drawn), target, held_out)
    compared = [graded.preferred for graded in grades if graded.preferred is not None]
    if compared:
        low, high = wilson(sum(compared), len(compared))
        row |= {
            "preferred": _short(float(np.mean(compared))),
            "preferred_low": _short(low),
            "preferred_high": _short(high),
        }
    if row.get("preferred_low", row["low"]) <= row["chance"]:
        row["note"] = "negative control: not above chance"
    return row


@torch.no_grad()
def domain_row(model: LlamaForCausalLM, encoder: Encoder, name: str, *, rows: int, seed: int) -> Row:
    """Next-token accuracy and loss on held-out templates of one domain; chance is saying its commonest token."""
    rng = random.Random(f"{name}/{seed}")
    drawn = [
        running_text(encoder, lambda: english.DOMAINS[name](rng, split="held_out"), length=128) for _ in range(rows)
    ]
    ids = torch.tensor([row.tokens for row in drawn])
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    targets = ids[:, 1:]
    hits = (logits.argmax(-1) == targets).numpy()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    chance = Counter(targets.flatten().tolist()).most_common(1)[0][1] / targets.numel()
    low, high = row_bootstrap(hits)
    row = _row(f"text_{name}", {"split": "held_out", "length": 128}, hits.mean(), rows, low, high, chance, None)
    return row | {"loss_nats": _short(loss), "held_out": "templates"}


def sink_row(model: LlamaForCausalLM, encoder: Encoder, *, rows: int, seed: int) -> Row:
    """Sink_1^0.3 at T = 64 on English: a fact about this model, not a task."""
    shares = sink_share(observe(model, english_batch(encoder, rows=rows, seed=seed)).attention)
    return {
        "task": "sink_1_share",
        "length": 64,
        "value": _short(shares.mean()),
        "n": rows,
        "note": "measured, no target",
    }


def _chance(task: Task, prompts: Sequence[Prompt]) -> float:
    if not prompts[0].accepted:
        return task.chance
    return float(np.mean([len(p.accepted) / (len(p.accepted) + len(p.wrong_answers)) for p in prompts]))


def _share(
    task: str, conditions: Row, grades: Sequence[Grade], chance: float, target: float | None, held_out: str | None
) -> Row:
    hits = sum(graded.exact for graded in grades)
    row = _row(task, conditions, hits / len(grades), len(grades), *wilson(hits, len(grades)), chance, target)
    return row | ({"held_out": held_out} if held_out else {})


def _row(
    task: str,
    conditions: Row,
    value: float,
    count: int,
    low: float,
    high: float,
    chance: float,
    target: float | None,
) -> Row:
    row = {"task": task, **conditions, "exact": _short(value), "n": count, "low": _short(low), "high": _short(high)}
    row["chance"] = _short(chance)
    return row | ({"target": target, "met": bool(value >= target)} if target is not None else {})


def _short(value: float | torch.Tensor) -> float:
    return round(float(value), 4)
