"""`learn`: what can be read off each head's output, and each layer's, by a linear probe; a run of its own in the store.

The model runs once over a labelled data set, each head's output is kept as one vector an example (`features.py`), and
each head, and each layer with the outputs of its heads side by side, is read by `linear_probe.py`. A head that carries
a label need not use it: whether it matters is for an ablation to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.errors import UserError, near_miss
from ..data.examples import Example
from ..data.heads import head_name
from ..data.run import Run
from ..data.schema import run_id
from ..data.store import RunWriter
from ..kernels.dispatch import using
from .baselines import random_weights
from .features import Vectors, data_at, head_vectors
from .linear_probe import CONTROLS, PARTS, PENALTY, Task, make_task, read_linearly
from .models import Model
from .once import Tell, made_once
from .plan import BATCH_TOKENS, Baseline, Plan, frame_of, load_for
from .progress import Bar, Report

NAME = "linear_probe"
VERSION = 1
FIELDS = ("answer", "wrong_answer", "partner")
"""Fields of an example that may be the label beside its conditions."""


@dataclass(frozen=True)
class Settings:
    """What is learned, and how: part of what the run is."""

    label: str
    at: str = "last"
    folds: int = 5
    control: str = "cluster"
    controls: int = CONTROLS
    penalty: float = PENALTY


@dataclass(frozen=True)
class LearnPlan:
    """One run to be: prompts, the labels to tell, and the folds."""

    plan: Plan
    settings: Settings
    labels: tuple[str, ...]
    task: Task

    @property
    def vectors(self) -> int:
        """How many heads and layers are read."""
        return sum(call.heads + 1 for call in self.plan.model.text_calls.values())

    @property
    def steps(self) -> int:
        """Examples that run forward, and the heads and layers that are then fitted."""
        return len(self.plan.data.examples) + self.vectors

    def header(self) -> dict[str, Any]:
        """The run's header before its first row; all examples are one chunk, for they are learned together."""
        plain = self.plan.header(chunk_size=len(self.plan.data.examples))
        return plain | {
            "kind": "learn",
            "learned": asdict(self.settings),
            "versions": plain["versions"] | {"scikit-learn": version("scikit-learn")},
            "probes": {NAME: card_of(self.settings, self.labels)},
        }


def learn(
    model: Model,
    data: str,
    *,
    label: str,
    at: str = "last",
    examples: int = 256,
    folds: int = 5,
    control: str = "cluster",
    controls: int = CONTROLS,
    penalty: float = PENALTY,
    seed: int = 0,
    bos: str = "default",
    store: str | Path = "runs",
    batch_tokens: int = BATCH_TOKENS,
    baselines: bool = False,
    report: Report | None = None,
) -> Run:
    """Learn to tell `label` from each head and layer, and return the run; the same call again finds it in the store.

    `label` and `control` are conditions of the examples (or answer, wrong_answer, partner); control labels are drawn
    for each value of `control`, for each `cluster` by default, `controls` times. `at` is last, mean or answer. With
    `baselines` the same is learned from the model with random weights: `run.against("random", "linear_probe")`.
    """
    settings = Settings(label, at, folds, control, controls, penalty)
    plan = plan_learning(model, data, settings, examples=examples, seed=seed, bos=bos, batch_tokens=batch_tokens)
    with Bar(plan.steps * (1 + baselines), unit="forwards and fits") as bar:
        run = carry_out(plan, store, report=report or bar)
        if baselines:
            carry_out(random_plan(plan), store, report=report or bar)
        return run


def plan_learning(
    model: Model, data: str, settings: Settings, *, examples: int, seed: int, bos: str, batch_tokens: int = BATCH_TOKENS
) -> LearnPlan:
    """What a `learn` will do, with everything refused that can't be learned."""
    if model.backend == "materialised":
        raise UserError(f"{model.name} computes its own softmax, which shows no outputs of heads; it can't be learned")
    if settings.folds < 2 or settings.controls < 1:
        raise UserError(
            f"expected 2 folds and 1 draw or more; came folds={settings.folds}, controls={settings.controls}"
        )
    made = load_for(model, data, examples=examples, seed=seed, bos=bos)
    labels = values_of(made.examples, settings.label, made.name)
    clusters = [str(one.cluster) for one in made.examples]
    types = None if settings.control == "cluster" else values_of(made.examples, settings.control, made.name)
    task = make_task(labels, clusters, types, folds=settings.folds, controls=settings.controls, seed=seed)
    made = data_at(made, settings.at)
    frame = frame_of(model, made, bos, 0)
    plan = Plan(model, made, (), {}, frame, seed, bos, batch_tokens, keep_positions=0)
    return LearnPlan(plan, settings, tuple(sorted(set(labels))), task)


def random_plan(plan: LearnPlan) -> LearnPlan:
    """The same learning from the model with random weights, as a baseline of the plan's run."""
    inner, of = plan.plan, Baseline("random", run_id(plan.header()))
    return replace(plan, plan=replace(inner, model=random_weights(inner.model, seed=inner.seed), baseline=of))


def values_of(examples: list[Example], name: str, data: str) -> list[str]:
    """A condition, or a field of `FIELDS`, of every example as text; one that some lack is refused."""
    found = [one.conditions.get(name, getattr(one, name) if name in FIELDS else None) for one in examples]
    lacking = sum(value is None for value in found)
    known = sorted({key for one in examples for key in one.conditions})
    known += [key for key in FIELDS if any(getattr(one, key) is not None for one in examples)]
    if lacking == len(examples):
        raise UserError(
            f"data set {data!r} has no condition {name!r}.{near_miss(name, known)} It has {', '.join(known) or 'none'}"
        )
    if lacking:
        raise UserError(f"data set {data!r}: {lacking} of {len(examples)} examples have no {name!r}; give it to all")
    return [str(value).strip() for value in found]


def carry_out(plan: LearnPlan, store: str | Path, *, report: Report | None = None) -> Run:
    """Forward, learn and write; a run that was stopped starts again, for nothing can be learned of a part."""

    def work(writer: RunWriter, tell: Tell) -> None:
        if NAME not in writer.done(0):
            vectors = head_vectors(plan.plan, plan.settings.at, tell=tell)
            tables = list(tables_of(vectors, plan.task, penalty=plan.settings.penalty, tell=tell))
            writer.write_rows(0, pd.concat(tables, ignore_index=True), [NAME])

    with using(plan.plan.statistics_by):
        return made_once(plan, store, work, steps=plan.steps, report=report)


def tables_of(
    vectors: Vectors, task: Task, *, penalty: float = PENALTY, tell: Tell = lambda more: None
) -> Iterator[pd.DataFrame]:
    """The store's rows: each head of each layer, then the layer as a whole, whose head is null."""
    for (tower, layer), values in vectors.items():
        heads: list[int | None] = [*range(values.shape[1]), None]
        for head in heads:
            read = read_linearly(
                values.reshape(len(values), -1) if head is None else values[:, head], task, penalty=penalty
            )
            yield _table(read).assign(tower=tower, layer=layer, head=pd.array([head] * read.size, dtype="Int16"))
            tell(1)


def _table(values: np.ndarray) -> pd.DataFrame:
    """Rows of values [example, part]; a vector is one reading of an example, so it counts as one query."""
    example, part = np.indices(values.shape).reshape(2, -1)
    return pd.DataFrame(
        {"example": example, "probe": NAME, "part": np.array(PARTS, dtype=object)[part], "value": values.ravel(),
         "n_queries": np.where(np.isnan(values.ravel()), 0, 1)}
    )  # fmt: skip


def card_of(settings: Settings, labels: tuple[str, ...]) -> dict[str, Any]:
    """The card of the reading, in the shape of a probe's."""
    told = f"{settings.label} ({len(labels)} labels)"
    return {
        "name": NAME,
        "title": f"Linear probe of {settings.label}",
        "summary": f"Whether {told} can be read off the head's output ({settings.at}) by logistic regression.",
        "explanation": "",
        "formula": "accuracy out of fold; control: the same for random labels per type; selectivity: their difference",
        "unit": "share of examples",
        "bounds": [0, 1],
        "higher": "the label stands in the head's output as a linear direction",
        "caveat": "says what is there, not that the model uses it; the best of many heads is partly luck; a control "
        "label per cluster is never seen in training, so it stands at chance",
        "source": "Hewitt and Liang, Designing and Interpreting Probes with Control Tasks, section 2",
        "family": "learned",
        "version": VERSION,
        "needs": ["output"],
        "groups": [],
        "parts": list(PARTS),
        "per": "example",
        "binary": False,
        "binary_parts": ["accuracy", "baseline"],
        "default_data": "topic",
        "labels": list(labels[:64]),
    }  # fmt: skip


def best_rows(run: Run, top: int) -> list[dict[str, str]]:
    """For people: the `top` heads by accuracy and every layer, in each stratum, rounded."""
    read: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in run.heads(NAME).to_dict("records"):
        place = f"L{row['layer']}, whole" if pd.isna(row["head"]) else head_name(row["layer"], row["head"])
        read.setdefault((str(row["stratum"]), place), {})[str(row["part"])] = row
    rows = []
    for stratum in dict.fromkeys(stratum for stratum, _ in read):
        places = [place for one, place in read if one == stratum]
        single = [place for place in places if not place.endswith("whole")]
        best = sorted(single, key=lambda place: -np.nan_to_num(read[stratum, place]["accuracy"]["mean"], nan=-1.0))
        whole = [place for place in places if place.endswith("whole")]
        rows += [_readable(stratum, place, read[stratum, place]) for place in (*best[:top], *whole)]
    return rows


def _readable(stratum: str, place: str, parts: dict[str, dict[str, Any]]) -> dict[str, str]:
    """One line of `best_rows`."""
    mean = {name: "-" if np.isnan(row["mean"]) else f"{row['mean']:.3f}" for name, row in parts.items()}
    low = {
        name: "-" if np.isnan(row["ci_low"]) else f"{row['ci_low']:.3f} .. {row['ci_high']:.3f}"
        for name, row in parts.items()
    }
    return {
        "place": place, "stratum": stratum, "accuracy": mean["accuracy"], "95 %": low["accuracy"],
        "control": mean["control"], "baseline": mean["baseline"], "selectivity": mean["selectivity"],
        "95 % of it": low["selectivity"], "n": str(parts["accuracy"]["n"]),
    }  # fmt: skip
