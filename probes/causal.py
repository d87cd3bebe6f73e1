"""The causal report: does it matter that these heads do what a reading says, more than it does for other heads?

A score of the model as it is stands beside the score with the heads edited, with random sets of as many heads edited,
and with all other heads edited, on prompts that were not used to choose the heads. Differences are paired by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.causal import COMPLEMENT, RANDOM, UNEDITED, CausalReport, report_of
from ..data.errors import UserError
from ..data.heads import head_name
from ..data.jsonl import digest_of
from ..data.reports import chosen_link, edit_link
from ..data.selection import Selection
from ..data.writer import TEXT_LIMIT
from .edit_run import EditPlan, Means, carry_out
from .edits.edit import Edit
from .edits.sets import Head, others_than, random_sets
from .models import Model
from .plan import BATCH_TOKENS, Plan, frame_of, load_for
from .progress import Report

SETS = 20
"""Random sets by default."""


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
    picked: Selection | None = None,
    left_out: int = 0,
    report: Report | None = None,
) -> CausalReport:
    """Run the four conditions of an edit and set them beside each other; without an edit there is one.

    `spared` heads are in no random set. `picked` says which reading chose the heads, `left_out` how many prompts that
    took away; both are kept with the edited run.
    """
    base = carry_out(EditPlan(plan, said=UNEDITED), store, report=report)
    runs = {UNEDITED: base}
    if edit is None:
        return report_of(runs)
    every = every_head(plan.model)
    if unknown := sorted(set(spared) - set(every)):
        raise UserError(f"there is no head {head_name(*unknown[0])} to spare; {plan.model.name} has {len(every)} heads")
    chosen = [(layer, head) for layer, heads in (edit.places or {}).items() for head in heads] or every
    means = Means(means_plan or plan) if edit.kind_of.needs == "means" else None
    controls, where = random_sets(chosen, others_than(spared, every), count=sets, seed=plan.seed)
    where += f", never {', '.join(head_name(*one) for one in spared)}" if spared else ""
    rest = others_than(chosen, every)
    conditions = {
        "edited": ([chosen], edit.spelled),
        RANDOM: (controls, f"{len(controls)} random sets from {where}"),
        COMPLEMENT: ([rest] if rest else [], "all other heads"),
    }
    chosen_by = [chosen_link(picked.run, picked.rule, left_out)] if picked else []
    for name, (sets_of, said) in conditions.items():
        if sets_of:
            links = [edit_link(base.id, name, runs["edited"].id)] if "edited" in runs else [edit_link(base.id, name)]
            variants = [[edit.of(heads)] for heads in sets_of]
            made = EditPlan(plan, variants, [*links, *chosen_by], means, f"{name}: {said}")
            runs[name], chosen_by = carry_out(made, store, report=report), []
    return report_of(runs)
