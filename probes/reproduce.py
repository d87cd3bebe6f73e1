"""`headatlas reproduce`: published numbers measured again, paper value, ours and the difference side by side.

A recipe says which runs it needs and how its quantities follow from their rows; the paper's values stand beside the
models they were published for. Any other model runs through the same recipe, without a paper value. Intervals are 95 %
over prompts (bootstrap). Nothing here was run on a large pretrained model by us: see the README.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.errors import UserError, near_miss
from ..data.intervals import MIN_CLUSTERS, drawn_clusters, expanded_tail
from ..data.store import Run
from .measure import measure
from .models import Model
from .progress import Report

Quantity = Callable[[np.ndarray], np.ndarray]
"""means [draw, head] -> value [draw]."""


@dataclass(frozen=True)
class Setting:
    """One run of a recipe: what is measured on what, and the quantities that follow from the means of its heads."""

    probe: str
    data: str
    quantities: Mapping[str, Quantity]
    part: str = ""
    bos: str = "default"
    answers: str = "given"


@dataclass(frozen=True)
class Recipe:
    """A published table: its settings, and its values by model (the last step of a hub id, lower case)."""

    name: str
    title: str
    source: str
    settings: tuple[Setting, ...]
    published: Mapping[str, Mapping[str, float]]
    unlike: str
    """Where this differs from the paper's own measurement."""
    examples: int = 100
    models: tuple[str, ...] = field(default=())
    """Hub ids to try."""


def percent_of(threshold: float) -> Quantity:
    """Share of the heads whose mean reaches a threshold, in per cent."""
    return lambda means: 100 * (means >= threshold).mean(1)


def number_of(threshold: float) -> Quantity:
    """Number of heads whose mean reaches a threshold."""
    return lambda means: (means >= threshold).sum(1).astype(float)


def _overall(means: np.ndarray) -> np.ndarray:
    return 100 * means.mean(1)


def _silent(means: np.ndarray) -> np.ndarray:
    return 100 * (means == 0).mean(1)


GU = "Gu et al., When Attention Sink Emerges in Language Models, table 1"
WU = "Wu et al., Retrieval Head Mechanistically Explains Long-Context Factuality, figure 3, from its published scores"
NATURAL, RANDOM, REPEATED = "Sink_1 natural, %", "Sink_1 random, %", "Sink_1 repeated, %"
HEADS, STRONG, NEVER = "heads of 0.1 and more, %", "heads of 0.5 and more", "heads at 0, %"
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="sink-table",
            title="First-token sinks of natural, random and repeated tokens: Sink_1 at eps 0.3 over 64 tokens",
            source=GU,
            settings=(
                Setting("sink_rate", "text:length=64", {NATURAL: _overall}),
                Setting("sink_rate", "random:length=64", {RANDOM: _overall}, bos="none"),
                Setting("sink_rate", "one_token:length=64", {REPEATED: _overall}, bos="none"),
            ),
            published={
                "gpt2-xl": {NATURAL: 77.00, RANDOM: 70.29, REPEATED: 62.28},
                "mistral-7b-v0.1": {NATURAL: 97.49, RANDOM: 75.21, REPEATED: 0.0},
                "llama-2-7b-hf": {NATURAL: 92.47, RANDOM: 90.13, REPEATED: 0.0},
                "meta-llama-3-8b": {NATURAL: 99.02, RANDOM: 91.23, REPEATED: 0.0},
            },
            unlike="the paper's 100 natural texts are not public: ours are the shipped essays, code and dialogue",
            models=("gpt2-xl", "mistralai/Mistral-7B-v0.1", "meta-llama/Llama-2-7b-hf", "meta-llama/Meta-Llama-3-8B"),
        ),
        Recipe(
            name="retrieval-heads",
            title="How many heads retrieve: mean retrieval score over needles, in prompts the model answers",
            source=WU,
            settings=(
                Setting(
                    "retrieval", "needle:lengths=1000+4000+8000",
                    {HEADS: percent_of(0.1), STRONG: number_of(0.5), NEVER: _silent}, part="score", answers="right",
                ),
            ),
            published={
                "llama-2-7b-80k": {HEADS: 3.2, STRONG: 6, NEVER: 70.2},
                "yi-6b-200k": {HEADS: 5.2, STRONG: 7, NEVER: 49.4},
                "mistral-7b-instruct-v0.2": {HEADS: 4.2, STRONG: 5, NEVER: 65.0},
                "qwen1.5-14b-chat": {HEADS: 4.3, STRONG: 1, NEVER: 71.1},
            },
            unlike="our needles and haystack, lengths to 8,000 tokens (the paper: to 50,000); the share of heads at 0 "
            "falls with the number of prompts (600 in the paper)",
            models=("mistralai/Mistral-7B-Instruct-v0.2", "01-ai/Yi-6B-200K"),
        ),
    )
}  # fmt: skip


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`."""
    if name not in RECIPES:
        raise UserError(f"unknown table {name!r}.{near_miss(name, RECIPES)} Expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def reproduce(
    model: Model, name: str, *, examples: int | None = None, data: str | None = None, store: str | Path = "runs",
    seed: int = 0, report: Report | None = None,
) -> pd.DataFrame:  # fmt: skip
    """quantity, paper, ours, ci_low, ci_high, difference, n and run of each number of a published table.

    `data` takes the place of the recipe's own where it has one setting alone: other lengths, or an organism's words.
    """
    recipe = find_recipe(name)
    if data is not None and len(recipe.settings) > 1:
        raise UserError(f"{name} is measured on {len(recipe.settings)} data sets; --data can't replace them")
    published = recipe.published.get(model.name.rstrip("/").split("/")[-1].lower(), {})
    rows: list[dict[str, Any]] = []
    for setting in recipe.settings:
        run = measure(
            model, setting.probe, data or setting.data, examples=examples or recipe.examples, store=store, seed=seed,
            bos=setting.bos, answers=setting.answers, report=report,
        )  # fmt: skip
        for quantity, value, low, high, n in _quantities(run, setting):
            paper = published.get(quantity, np.nan)
            rows.append(
                {"quantity": quantity, "paper": paper, "ours": value, "ci_low": low, "ci_high": high,
                 "difference": value - paper, "n": n, "run": run.id}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _quantities(run: Run, setting: Setting) -> list[tuple[str, float, float, float, int]]:
    """(name, value, ends of its interval, prompts with a value) of each quantity of one run."""
    rows = run.rows(setting.probe)
    rows = rows[rows["part"].astype(str) == setting.part]
    table = rows.pivot_table(index="example", columns=["layer", "head"], values="value", dropna=False)
    values = table.to_numpy(float)
    values = values[~np.isnan(values).all(1)][:, ~np.isnan(values).all(0)]
    n = len(values)
    if not n:
        raise UserError(f"{setting.probe} is undefined on every prompt of {run.header['data']['spec']}")
    known = ~np.isnan(values)

    def means(picks: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (picks @ np.where(known, values, 0)) / (picks @ known.astype(float))

    found = []
    for name, quantity in setting.quantities.items():
        drawn = quantity(means(drawn_clusters(n, 2000, 0)))
        tail = expanded_tail(n) if n >= MIN_CLUSTERS else np.nan
        low, high = (np.nan, np.nan) if np.isnan(tail) else np.quantile(drawn, [tail, 1 - tail])
        found.append((name, float(quantity(means(np.ones((1, n))))[0]), float(low), float(high), n))
    return found
