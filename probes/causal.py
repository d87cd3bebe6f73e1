"""The causal report: does it matter that these heads do what a reading says, more than it does for other heads?

A score of the model as it is stands beside the score with the heads edited, with random sets of as many heads edited,
and with all other heads edited, on prompts that were not used to choose the heads. Differences are paired by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.against import compare
from ..data.errors import UserError
from ..data.heads import head_name
from ..data.jsonl import digest_of
from ..data.run import Run
from ..data.writer import TEXT_LIMIT
from .edit_run import EditPlan, Means, carry_out
from .edits.edit import Edit
from .edits.sets import Head, others_than, random_sets
from .models import Model
from .plan import BATCH_TOKENS, Plan, frame_of, load_for
from .progress import Report

SETS = 20
"""Random sets by default."""


@dataclass(frozen=True)
class CausalReport:
    """What an edit did: a row a condition and score, the runs it is read from, and how the control was drawn."""

    table: pd.DataFrame
    """condition, score, sets, mean, difference, ci_low, ci_high, lowest, highest, effect, n."""
    runs: dict[str, Run]
    """unedited, edited, random, complement."""
    heads: tuple[str, ...]
    drawn_from: str
    left_out: int
    """Prompts left out because they were used to choose the heads."""


def prompts(
    model: Model, data: str, *, examples: int, seed: int, bos: str, without: Sequence[str] = (),
    batch_tokens: int = BATCH_TOKENS,
) -> tuple[Plan, int]:  # fmt: skip
    """(the plan of a data set less prompts whose text is among `without`, how many those were).

    Scores are not averaged over lengths: a data set of several is refused.
    """
    made = load_for(model, data, examples=examples, seed=seed, bos=bos)
    lengths = sorted({one.conditions["length"] for one in made.examples if "length" in one.conditions})
    if len(lengths) > 1:
        raise UserError(
            f"{made.spec!r} has prompts of {', '.join(map(str, lengths))} tokens; score one length at a time"
        )
    frame = frame_of(model, made, bos, 0)
    seen = set(without)
    kept = [index for index, text in enumerate(frame["text"]) if str(text)[:TEXT_LIMIT] not in seen]
    if not kept:
        raise UserError(f"all {len(frame)} prompts of {made.spec!r} were used to choose the heads; use another --seed")
    plan = Plan(model, made, (), {}, frame, seed, bos, batch_tokens, keep_positions=0)
    return plan if len(kept) == len(frame) else part_of_plan(plan, kept), len(frame) - len(kept)


def part_of_plan(plan: Plan, kept: Sequence[int]) -> Plan:
    """The plan of some of the prompts, by number."""
    chosen = [plan.data.examples[index] for index in kept]
    frame = plan.frame.iloc[list(kept)].reset_index(drop=True).assign(example=range(len(kept)))
    return replace(plan, data=replace(plan.data, examples=chosen, digest=digest_of(chosen)), frame=frame)


def every_head(model: Model) -> list[Head]:
    """All heads of the text tower."""
    return [(layer, head) for layer, call in sorted(model.text_calls.items()) for head in range(call.heads)]


def causal_report(
    plan: Plan,
    edit: Edit | None,
    *,
    store: str | Path,
    sets: int = SETS,
    means_plan: Plan | None = None,
    spared: Sequence[Head] = (),
    left_out: int = 0,
    report: Report | None = None,
) -> CausalReport:
    """Run the four conditions of an edit and set them beside each other; without an edit there is one.

    `spared` heads are in no random set.
    """
    base = EditPlan(plan, said="unedited")
    runs = {"unedited": carry_out(base, store, report=report)}
    if edit is None:
        return CausalReport(table_of(runs), runs, (), "", left_out)
    every = every_head(plan.model)
    if unknown := sorted(set(spared) - set(every)):
        raise UserError(f"there is no head {head_name(*unknown[0])} to spare; {plan.model.name} has {len(every)} heads")
    chosen = [(layer, head) for layer, heads in (edit.places or {}).items() for head in heads] or every
    means = Means(means_plan or plan) if edit.kind_of.needs == "means" else None
    controls, where = random_sets(chosen, others_than(spared, every), count=sets, seed=plan.seed)
    rest = others_than(chosen, every)
    conditions = {
        "edited": ([chosen], edit.spelled),
        "random": (controls, f"{len(controls)} random sets from {where}"),
        "complement": ([rest] if rest else [], "all other heads"),
    }
    for name, (sets_of, said) in conditions.items():
        if sets_of:
            variants = [[edit.of(heads)] for heads in sets_of]
            made = EditPlan(plan, variants, runs["unedited"].id, means, f"{name}: {said}")
            runs[name] = carry_out(made, store, report=report)
    return CausalReport(table_of(runs), runs, tuple(head_name(*one) for one in chosen), where, left_out)


def values_of(run: Run, score: str) -> np.ndarray:
    """[example, variant] of one score."""
    rows = run.rows(score)
    parts = list(run.header["probes"][score]["parts"]) or [""]
    grid = np.full((int(run.header["data"]["examples"]), len(parts)), np.nan)
    column = pd.Index(parts).get_indexer(pd.Index(rows["part"].astype(str)))
    grid[rows["example"].to_numpy(), column] = rows["value"].to_numpy(dtype=float)
    return grid


def table_of(runs: dict[str, Run]) -> pd.DataFrame:
    """The rows of a report; a random set is one of many, so its line is the mean over sets of each prompt.

    `effect` is how many standard deviations of the random sets' differences the difference lies from their mean.
    """
    base = runs["unedited"]
    clusters = base.examples()["cluster"].to_numpy()
    lines = []
    for score, card in base.header["probes"].items():
        plain = values_of(base, score)
        spread = values_of(runs["random"], score).mean(0) - plain.mean() if "random" in runs else np.zeros(0)
        for name, run in runs.items():
            values = values_of(run, score)
            several = values.shape[1] > 1
            one = values.mean(1, keepdims=True)
            found = compare(one, plain, clusters, binary=bool(card["binary"]) and not several)
            single = values.mean(0)
            line: dict[str, Any] = {"condition": name, "score": score, "sets": values.shape[1]}
            line |= {key: float(found[key][0]) for key in ("mean", "difference", "ci_low", "ci_high")}
            ends = (float(single.min()), float(single.max())) if several else (np.nan, np.nan)
            line |= dict(zip(("lowest", "highest"), ends, strict=True))
            line["effect"] = np.nan if name in ("unedited", "random") else _effect(line["difference"], spread)
            lines.append(line | {"n": int(found["n"][0])})
    return pd.DataFrame(lines)


def _effect(difference: float, spread: np.ndarray) -> float:
    """Standard deviations of the random sets from their mean; NaN where they do not differ or are too few."""
    deviation = spread.std(ddof=1) if len(spread) > 2 else 0.0
    return (difference - float(spread.mean())) / float(deviation) if deviation > 1e-9 else float("nan")
