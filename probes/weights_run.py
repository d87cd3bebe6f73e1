"""The run of a model's weights: every reading in one go, no forward but that of the check, one pseudo example.

The data set is called `weights` and has one example without tokens, so a reading has n = 1 and no interval. The id does
not hang on seed, BOS policy or number of examples: the same weights are the same run.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ..data.catalog import Dataset
from ..data.errors import UserError
from ..data.examples import Example, examples_frame
from ..data.store import Run, RunWriter
from .folding import head_weights
from .measurement import Measurement
from .models import Model
from .pairs import pair_table
from .plan import versions
from .progress import Progress, Report
from .reading import DATA, WeightReading
from .weights import HeadWeights

PASSES = {"composition": 6, "subspace_affinity": 3}
"""Products of every head with every earlier one that a reading takes, edges included; the other readings take none."""
TEXT = "the weights of the model, no prompt"
DIGEST = "weights"


@dataclass(frozen=True)
class WeightsPlan:
    """One run to be: a model, and the readings that its weights allow."""

    model: Model
    probes: tuple[WeightReading, ...]
    skipped: dict[str, str]
    """Reading -> why it is not measured here."""
    baseline: None = None
    """Random weights have known scores; see the cards."""

    @property
    def title(self) -> str:
        """What is measured on what, as people say it."""
        return f"{self.model.name}, its weights alone"

    @property
    def data(self) -> Dataset:
        """The pseudo data set: one example that stands for the model."""
        return Dataset(DATA, DATA, {}, (), (), [Example(id=DATA, text=TEXT)], DIGEST)

    @property
    def frame(self) -> pd.DataFrame:
        """The store's table of examples: one row, no tokens."""
        return examples_frame(self.data.examples, dataset=DATA, tokens=[0], texts=[TEXT], token_ids=[None])

    @property
    def flops(self) -> float:
        """Of the products of pairs of heads, which is what takes long in a large model."""
        card = self.model.card()
        joined = (card["heads"] or 1) * (card["head_dim"] or 1)
        pairs = (card["layers"] or 1) * ((card["layers"] or 1) - 1) / 2
        width = getattr(self.model.config, "hidden_size", None) or joined
        return sum(PASSES.get(one.name, 0) for one in self.probes) * pairs * 2.0 * joined**2 * width

    def header(self) -> dict[str, Any]:
        """The run's header before its first row."""
        made = self.data
        return {
            "kind": "measure",
            "model": self.model.card(),
            "dtype": self.model.dtype,
            "device": self.model.device.type,
            "backend": DATA,
            "tokenizer": {"digest": self.model.tokenizer_digest},
            "data": {"name": DATA, "spec": DATA, "digest": DIGEST, "strata": [], "groups": [],
                     "examples": len(made.examples)},
            "bos": "none",
            "seed": 0,
            "keep_positions": 0,
            "versions": versions() | {"transformer_lens": version("transformer-lens")},
            "probes": {one.name: one.card() for one in self.probes},
            "skipped": self.skipped,
            "argv": sys.argv,
        }  # fmt: skip


def apart(probes: Iterable[Measurement]) -> tuple[list[Measurement], list[WeightReading]]:
    """Those that need prompts, and those of weights alone."""
    chosen = list(probes)
    readings = [one for one in chosen if isinstance(one, WeightReading)]
    return [one for one in chosen if not isinstance(one, WeightReading)], readings


def plan_weights(model: Model, probes: Iterable[Measurement], *, named: Collection[str] = ()) -> WeightsPlan:
    """The plan of the run of a model's weights; refused where nothing can be read, or one of `named` can't.

    The weights are read to know what they allow, and let go: other runs may come first.
    """
    prompted, readings = apart(probes)
    skipped = {one.name: "needs prompts; `weights` has none" for one in prompted}
    _refuse({name: reason for name, reason in skipped.items() if name in named or not readings})
    weights = head_weights(model)
    unfit = {one.name: why for one in readings if (why := one.why_not(weights)) is not None}
    kept = tuple(one for one in readings if one.name not in unfit)
    _refuse({name: why for name, why in unfit.items() if name in named or not kept})
    return WeightsPlan(model, kept, skipped | unfit)


def _refuse(reasons: dict[str, str]) -> None:
    if reasons:
        raise UserError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


def measure_weights(plan: WeightsPlan, writer: RunWriter, report: Report | None) -> Run:
    """Read what the run does not hold yet, and write it; `writer` is open and is closed by its owner."""
    writer.write_examples(plan.frame)
    missing = [one for one in plan.probes if one.name not in writer.done(0)]
    if missing:
        weights = head_weights(plan.model)
        tables = [rows_of(one, weights) for one in missing]
        if any(one.name == "composition" for one in missing):
            writer.write_edges(edges_of(weights))
        writer.write_rows(0, pd.concat(tables, ignore_index=True), [one.name for one in missing])
    if report is not None:
        report(Progress(writer.path.name, 1, 1))
    writer.finish("done")
    return writer.run


def rows_of(one: WeightReading, weights: HeadWeights) -> pd.DataFrame:
    """The store's rows of one reading: every part of every head, of no query."""
    values = one.measure(weights).cpu().numpy()  # [layer, head, part]
    layer, head, part = np.indices(values.shape).reshape(3, -1)
    numbers = np.array(weights.layers or range(values.shape[0]))
    names = np.array(one.parts or ("",), dtype=object)
    return pd.DataFrame(
        {"example": 0, "probe": one.name, "part": names[part], "layer": numbers[layer], "head": head,
         "value": values.ravel(), "n_queries": 0}
    )  # fmt: skip


def edges_of(weights: HeadWeights) -> pd.DataFrame:
    """The store's edges: every pair's composition above chance, as `a0.h6` -> `a1.h3<k>`.

    `kept` are the strongest of each head and kind: those that the reading `composition` reports.
    """
    pairs = pair_table(weights, affinity=False)
    above = pairs["score"] - pairs["baseline"]
    strongest = above.groupby([pairs["kind"], pairs["target"]]).transform("max") == above
    sources = [_node(name) for name in pairs["source"]]
    targets = [f"{_node(name)}<{kind}>" for name, kind in zip(pairs["target"], pairs["kind"], strict=True)]
    return pd.DataFrame(
        {"source": sources, "target": targets, "score": above, "kept": strongest, "task": DATA, "method": "composition"}
    ).dropna(subset=["score"])


def _node(name: str) -> str:
    """L5H1 as circuits spell it: a5.h1."""
    layer, _, head = name[1:].partition("H")
    return f"a{layer}.h{head}"
