"""A score along the share of KV heads that stay full: taken in the order of a reading, and in random orders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.causal import mean_of, values_of
from ..data.errors import UserError
from ..data.policy import RECENT, SINKS, Policy, policy, random_policies
from ..data.reports import edit_link
from ..data.run import Run
from .causal import SETS, prompts
from .edit_run import EditPlan, carry_out
from .models import Model
from .plan import Plan
from .policy import chosen_on, mean_cache, scored_under
from .progress import Bar

SHARES = (0.0, 0.125, 0.25, 0.5, 1.0)


def policy_curve(
    model: Model,
    reading: str,
    *,
    data: str = "needle",
    shares: Sequence[float] = SHARES,
    lowest: bool = False,
    sinks: int = SINKS,
    recent: int = RECENT,
    sets: int = SETS,
    examples: int = 60,
    seed: int = 1,
    bos: str = "default",
    store: str | Path = "runs",
) -> pd.DataFrame:
    """Scores of policies with more and more KV heads full, in the order of a stored reading and in `sets` random ones.

    A row per order (`reading`, `random`), share and score: full (the share of KV heads), cache (the share kept at the
    end of a prompt), mean with its 95 % interval over prompts, n, sets, and the lowest and highest of single sets. A
    random line is the mean over sets of each prompt. Prompts that the reading was measured on are left out.
    """
    if not shares or sets < 1:
        raise UserError(f"expected one share or more and one random order or more; came {list(shares)} and {sets}")
    policies = [
        policy(reading, store=store, full=share, lowest=lowest, sinks=sinks, recent=recent)
        for share in sorted(set(shares))
    ]
    texts = chosen_on(policies[0], store) or ()
    plan, _ = prompts(model, data, examples=examples, seed=seed, bos=bos, without=texts)
    lines: list[dict[str, Any]] = []
    with Bar((1 + 2 * len(policies)) * len(plan.data.examples)) as bar:
        base = carry_out(EditPlan(plan, said="unedited"), store, report=bar)
        for one in policies:
            orders = {"reading": [one], "random": random_policies(one, sets, plan.seed) or [one]}
            for order, chosen in orders.items():
                said = f"{len(chosen)} policies of {one.count} full KV heads, order: {order}"
                run = scored_under(chosen, plan, [edit_link(base.id)], said, store=store, report=bar)
                lines += _lines(order, one, plan, run)
    return pd.DataFrame(lines)


def _lines(order: str, policy: Policy, plan: Plan, run: Run) -> list[dict[str, Any]]:
    """The rows of one run, a score each."""
    clusters = run.examples()["cluster"].to_numpy()
    place = {"order": order, "full": policy.share, "cache": mean_cache(policy, plan)}
    return [
        place | {"score": score} | mean_of(values_of(run, score), clusters, binary=bool(card["binary"]))
        for score, card in run.header["probes"].items()
    ]
