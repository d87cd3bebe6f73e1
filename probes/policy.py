"""What becomes of a task under a cache policy: the query heads of streaming KV heads see sinks and recent tokens alone.

By a mask in one forward, on whole prompts and answers, with the tokens' own positions; caches that number what they
keep anew, as StreamingLLM's does, are another intervention. The score stands beside that of the model as it is, of
random policies with as many full KV heads, and of all KV heads streaming, on prompts that did not choose the heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.causal import RANDOM, UNEDITED, table_of
from ..data.errors import UserError
from ..data.heads import head_name
from ..data.policy import Policy, random_policies
from ..data.reports import chosen_link, edit_link
from ..data.run import Run
from ..data.store import open_store
from .causal import SETS
from .edit_run import EditPlan, carry_out
from .edits.edit import Edit
from .models import Model
from .plan import Plan
from .progress import Report

RANDOM_FROM = "all KV heads"


@dataclass(frozen=True)
class PolicyReport:
    """What a policy did: a row a condition and score, and the runs it is read from."""

    table: pd.DataFrame
    """condition, score, sets, mean, difference, ci_low, ci_high, lowest, highest, effect, n, cache."""
    runs: dict[str, Run]
    """unedited, policy, random, all streaming."""
    random: int
    """Random policies; none where no other has as many full heads."""


def streaming_edits(policy: Policy, model: Model) -> list[Edit]:
    """The edit that makes the policy's streaming heads stream; none where all are full."""
    each = _query_heads_each(policy, model)
    names = [
        head_name(layer, head)
        for layer in range(policy.shape[0])
        for shared in policy.streaming(layer)
        for head in range(shared * each[layer], (shared + 1) * each[layer])
    ]
    return [Edit("mask", names, sinks=policy.sinks, recent=policy.recent)] if names else []


def policy_report(
    plan: Plan, policy: Policy, *, store: str | Path, sets: int = SETS, report: Report | None = None
) -> PolicyReport:
    """Run the four conditions of a policy and set them beside each other."""
    layers, shared = policy.shape
    none = replace(policy, full=((False,) * shared,) * layers)
    others = random_policies(policy, sets, plan.seed)
    base = carry_out(EditPlan(plan, said=UNEDITED), store, report=report)
    runs, cache = {UNEDITED: base}, {UNEDITED: 1.0}
    conditions = {
        "policy": ([policy], f"policy of {policy.source or policy.rule}"),
        RANDOM: (others, f"{len(others)} random policies from {RANDOM_FROM}"),
        "all streaming": ([none], "all KV heads streaming"),
    }
    for name, (policies, said) in conditions.items():
        if policies:
            links = [edit_link(base.id, name, runs["policy"].id if "policy" in runs else "")]
            if name == "policy" and policy.source:
                run, _, reading = policy.source.partition(":")
                links.append(chosen_link(run, reading))
            runs[name] = scored_under(policies, plan, links, said, store=store, report=report)
            cache[name] = mean_cache(policies[0], plan)
    table = table_of(runs)
    return PolicyReport(table.assign(cache=[cache[name] for name in table["condition"]]), runs, len(others))


def scored_under(
    policies: Sequence[Policy],
    plan: Plan,
    links: Sequence[Mapping[str, Any]],
    said: str,
    *,
    store: str | Path,
    report: Report | None = None,
) -> Run:
    """The run of a plan's scores under one policy or several."""
    variants = [streaming_edits(one, plan.model) for one in policies]
    return carry_out(EditPlan(plan, variants, links, said=said), store, report=report)


def mean_cache(policy: Policy, plan: Plan) -> float:
    """The share of the cache kept at the end of a prompt, answer included, as the mean over prompts."""
    return sum(map(policy.cache, plan.lengths)) / len(plan.lengths)


def chosen_on(policy: Policy, store: str | Path) -> list[str] | None:
    """The texts of the prompts that the policy's reading was measured on; None where the store has no such run."""
    run, folder = policy.source.partition(":")[0], Path(store)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    held = open_store(folder)
    return held.run(run).examples()["text"].astype(str).tolist() if run in set(held.runs()["run_id"]) else None


def _query_heads_each(policy: Policy, model: Model) -> list[int]:
    """Query heads of a KV head, layer by layer; a policy of another shape is refused."""
    calls = model.text_calls
    layers, shared = policy.shape
    widths = sorted({call.kv_heads for call in calls.values()})
    if sorted(calls) != list(range(layers)) or widths != [shared]:
        raise UserError(
            f"the policy{f' of {policy.model}' if policy.model else ''} is for {layers} layers of {shared} KV heads; "
            f"{model.name} has {len(calls)} layers of {' or '.join(map(str, widths))}"
        )
    return [calls[layer].heads // shared for layer in range(layers)]
