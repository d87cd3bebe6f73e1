"""Named interventions: an edit is chosen on half of the prompts, and what it does is measured on the other half.

Beside it stand the model as it is, random sets of as many heads with the same edit, and all other heads with it. All
differences are paired by prompt. What is chosen on one data set speaks of that data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...data.against import compare
from ...data.causal import values_of
from ...data.run import Run
from ..causal import SETS, causal_report, prompts
from ..edits.edit import Edit
from ..models import Model
from ..progress import Bar, Report
from ..scores import check_score
from .act import PAPER, Act
from .greedy import Greedy
from .method import Method
from .pasta import GRID as ALPHAS
from .pasta import Pasta
from .search import Search, halves
from .zero_tuning import GRID as GAMMAS
from .zero_tuning import ZeroTuning

LESS_RANDOM = "edited less random"


@dataclass(frozen=True)
class Tuned:
    """What a method chose, and what came of it on prompts that it did not choose on."""

    method: Method
    edit: Edit | None
    """None: nothing was better than the model as it is."""
    score: str
    """What was chosen by."""
    heads: pd.DataFrame
    """A row for each head or step that was tried, on the prompts to choose on."""
    grid: pd.DataFrame
    """amount, mean, gain: a row for each amount that was tried there."""
    table: pd.DataFrame
    """The held-out prompts, as in a causal report, and `edited less random`."""
    runs: dict[str, Run]
    """unedited, edited, random, complement, on the held-out prompts."""
    drawn_from: str
    """Where the heads of random sets come from."""
    n: tuple[int, int]
    """Prompts chosen on, prompts reported on."""


def tune(
    method: Method,
    model: Model,
    data: str,
    *,
    examples: int = 60,
    score: str | None = None,
    sets: int = SETS,
    seed: int = 1,
    bos: str = "default",
    store: str | Path = "runs",
    say: Callable[[str], object] | None = None,
    report: Report | None = None,
) -> Tuned:
    """Choose an edit by `method` on half of the prompts and report on the other half; the same call again is quick.

    `score` is what is chosen by, by default the first that the prompts have (exact_match, without answers token_loss);
    `answer_entropy` chooses without labels. `say` hears what it takes before it starts.
    """
    plan, _ = prompts(model, data, examples=examples, seed=seed, bos=bos)
    score = check_score(score, plan)
    chosen_on, held_out = halves(plan)
    first, last = len(chosen_on.data.examples), len(held_out.data.examples)
    forwards = first * (1 + method.forwards(Search(chosen_on, held_out, score, store))) + last * (3 + sets)
    if say is not None:
        say(f"{method.name}: up to {forwards} forwards of one prompt; {first} prompts to choose on, {last} held out")
    with Bar(forwards, lines=say is not None, unit="forwards") as bar:
        search = Search(chosen_on, held_out, score, store, report or bar)
        choice = method.choose(search)
        found = causal_report(
            held_out, choice.edit, store=store, sets=sets, means_plan=chosen_on, report=search.report
        )  # fmt: skip
    table = pd.concat([found.table, less_random(found.runs)], ignore_index=True)
    return Tuned(
        method, choice.edit, score, choice.heads, choice.grid, table, found.runs, found.drawn_from, (first, last)
    )


def less_random(runs: dict[str, Run]) -> pd.DataFrame:
    """A row for each score: the edited model less the mean over the random sets of each prompt, paired."""
    lines: list[dict[str, Any]] = []
    for score in runs["unedited"].header["probes"] if "random" in runs else ():
        edited, random = values_of(runs["edited"], score), values_of(runs["random"], score)
        clusters = runs["edited"].examples()["cluster"].to_numpy()
        found = compare(edited, random.mean(1, keepdims=True), clusters)
        line: dict[str, Any] = {"condition": LESS_RANDOM, "score": score, "sets": 1, "mean": np.nan}
        line |= {key: float(found[key][0]) for key in ("difference", "ci_low", "ci_high")}
        lines.append(line | {"lowest": np.nan, "highest": np.nan, "effect": np.nan, "n": int(found["n"][0])})
    return pd.DataFrame(lines)


def zero_tuning(
    model: Model,
    data: str,
    *,
    up: float = 2.0,
    down: float = 0.5,
    grid: Sequence[float] = GAMMAS,
    across_layers: bool = False,
    **options: Any,
) -> Tuned:
    """The first token's weight times gamma in the heads that it helps; `options` are those of `tune`."""
    return tune(ZeroTuning(up, down, tuple(grid), across_layers), model, data, **options)


def act_search(
    model: Model,
    data: str,
    *,
    amount: float = 0.4,
    threshold: float | None = None,
    leave_out: Sequence[int] = PAPER,
    **options: Any,
) -> Tuned:
    """ACT in the heads that it helps, found one at a time; `options` are those of `tune`."""
    return tune(Act(amount, threshold, tuple(leave_out)), model, data, **options)


def pasta(
    model: Model,
    data: str,
    *,
    group: str = "user",
    grid: Sequence[float] = ALPHAS,
    heads: Sequence[str] | None = None,
    **options: Any,
) -> Tuned:
    """Every key of the prompt but the group's counts alpha times; `options` are those of `tune`."""
    return tune(Pasta(group, tuple(grid), None if heads is None else tuple(heads)), model, data, **options)


def greedy_heads(
    model: Model, data: str, *, kind: str = "zero", k: int = 4, goal: str = "better", amount: float | None = None,
    from_group: str | None = None, to_group: str | None = None, sinks: int | None = None, recent: int | None = None,
    threshold: float | None = None, **options: Any,
) -> Tuned:  # fmt: skip
    """Up to `k` heads whose edit moves the score most, one after another; `options` are those of `tune`."""
    method = Greedy(kind, k, goal, amount, from_group, to_group, sinks, recent, threshold)
    return tune(method, model, data, **options)
