"""How probes and plans read in a terminal: the card of a probe, the README's table, what a plan will take."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cost import cost_of, matmul_rate
from .experiment import Experiment
from .reading import DATA as WEIGHTS

if TYPE_CHECKING:
    from .learn import LearnPlan
    from .measurement import Measurement
    from .plan import Plan
    from .weights_run import WeightsPlan


def card_text(one: Measurement) -> str:
    """A probe in full: its formula, unit and bounds, what a high value means, what it does not show, its source."""
    low, high = one.bounds
    lines = {
        "formula": one.formula,
        "unit": f"{one.unit}, {_range(low, high)}",
        "high means": one.higher,
        "does not show": one.caveat,
        "needs": ", ".join(sorted(one.needs)) or f"forwards of its own, {getattr(one, 'why_forwards', '')}",
        "labels": ", ".join(one.groups) or "none",
        "data": "none: the weights alone, no prompts" if one.per == WEIGHTS else one.default_data,
        "source": one.source,
    }
    body = [
        textwrap.fill(text, 110, initial_indent=f"  {name:<14}", subsequent_indent=" " * 16)
        for name, text in lines.items()
    ]
    return "\n".join([f"{one.spelled}  {one.title}", f"  {one.summary}", *body])


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "any number" if high is None else f"at most {high}"
    return f"{low} to {'no limit' if high is None else high}"


def markdown_tables(chosen: Iterable[Measurement]) -> str:
    """The README's tables: probes, then readings of weights, then experiments."""
    kinds: dict[str, list[Measurement]] = {}
    for one in chosen:
        kinds.setdefault(type(one).__name__, []).append(one)
    return "\n\n".join(markdown_table(kind) for kind in kinds.values())


def markdown_table(chosen: Iterable[Measurement]) -> str:
    """One table of the README."""
    rows = [f"| `{one.name}` | {one.family} | {one.summary} | {one.unit} | {one.source} |" for one in chosen]
    return "\n".join(["| probe | family | what it measures | unit | source |", "|---|---|---|---|---|", *rows])


def plan_text(plan: Plan | WeightsPlan, store: str | Path) -> str:
    """What a plan will do and what it takes, and a line for each probe that is skipped."""
    from .measure import stored_run
    from .plan import Plan

    stored = stored_run(plan, store)
    if stored is not None:
        return f"{plan.title}: all measured already, in {stored.id}"
    skipped = [f"  skipped {name}: {reason}" for name, reason in plan.skipped.items()]
    if not isinstance(plan, Plan):
        seconds = plan.flops / matmul_rate(plan.model)
        said = f"{len(plan.probes)} readings, no prompts; {plan.flops / 1e9:,.0f} GFLOP, about {duration(seconds + 1)}"
        return "\n".join([f"{plan.title}: {said}", *skipped])
    costly = {one: one.forwards(plan.model) for one in plan.probes if isinstance(one, Experiment)}
    cost = cost_of(plan.model, plan.lengths, batch_tokens=plan.batch_tokens, more=sum(costly.values()))
    beside = " beside the model's own" if plan.baseline and plan.baseline.kind == "random" else ""
    more = "".join(f", and {count:,} more each for {one.name} ({one.why_forwards})" for one, count in costly.items())
    text = (
        f"{plan.title}: {len(plan.probes)} probes, {cost.examples} examples, "
        f"{cost.tokens:,} tokens in about {cost.forwards} forwards of {plan.batch_tokens:,} tokens, "
        f"each for all probes at once{'' if plan.answers == 'given' else ', after one that answers'}{more}; "
        f"{cost.flops / 1e9:,.0f} GFLOP, about {duration(cost.seconds)}, "
        f"{cost.bytes / 1e6:,.0f} MB{beside} "
        f"(n x n maps would take {cost.map_bytes / 1e6:,.0f} MB more); statistics by {plan.statistics_by}"
    )
    return "\n".join([text, *skipped])


def learn_text(plan: LearnPlan, store: str | Path) -> str:
    """What a learning will do and what its forwards take; fits are counted, their time is not known before."""
    from .once import stored

    held = stored(plan, store)
    if held is not None:
        return f"{plan.plan.title}: learned already, in {held.id}"
    fits = plan.vectors * plan.settings.folds * (1 + plan.settings.controls)
    cost = cost_of(plan.plan.model, plan.plan.lengths, batch_tokens=plan.plan.batch_tokens)
    return (
        f"{plan.plan.title}: {len(plan.labels)} labels of {plan.settings.label}, {cost.examples} examples, "
        f"{cost.tokens:,} tokens in about {cost.forwards} forwards, {cost.flops / 1e9:,.0f} GFLOP, "
        f"about {duration(cost.seconds)}; then {fits:,} fits: {plan.vectors} heads and layers, "
        f"{plan.settings.folds} folds, the labels and {plan.settings.controls} draws of control labels"
    )


def said_of(header: Mapping[str, Any]) -> str:
    """What a run holds, in a few words."""
    measured = len(header["probes"])
    if header["data"]["spec"] == WEIGHTS:
        return f"from the weights, {measured} readings"
    return f"{header['data']['examples']} examples, {measured} probes"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
