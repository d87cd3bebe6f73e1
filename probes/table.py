"""A published table as plain data: the runs it takes, how its numbers follow from their rows, and what the paper has.

A table is one file of `reproductions/` with a `Table` in it. A quantity is read off means over prompts, [draw, place]:
one draw of the prompts as they are, 2,000 with whole clusters drawn again for the 95 % interval.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..data.errors import UserError, near_miss
from ..data.heads import HEAD_NAME, parse_head
from ..data.intervals import MIN_CLUSTERS, cluster_sums, drawn_clusters, expanded_tail
from ..data.run import Run
from .measure import measure
from .models import Model
from .progress import Report

Place = tuple[int | None, int | None]
"""(layer, head); a reading of a layer has no head, a score of the model neither."""
Quantity = Callable[[np.ndarray, Sequence[Place]], np.ndarray]
"""means [draw, place], places -> value [draw]."""
DRAWS = 2000


class Found(NamedTuple):
    """A number as we measured it: the ends of its interval, NaN where there is none, and the clusters of prompts."""

    quantity: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of a table: what is measured on what, and the quantities that follow from the means of its places."""

    probe: str
    data: str
    paper_data: str
    """What the paper measured it on."""
    quantities: Mapping[str, Quantity]
    of_shares: Mapping[str, Quantity] = field(default_factory=dict)
    """Quantities of the shares of prompts with a value above 0; no interval: drawing prompts again only raises them."""
    part: str = ""
    bos: str = "default"
    answers: str = "given"
    heads: bool = False
    """Also the mean of each head that has a published value, under the head's name."""

    @property
    def names(self) -> set[str]:
        """The quantities that every model has."""
        return {*self.quantities, *self.of_shares}

    def run(self, model: Model, data: str, *, examples: int, seed: int, store: Path, report: Report | None) -> Run:
        """Measure, or find the run in the store."""
        return measure(
            model, self.probe, data, examples=examples, seed=seed, store=store, bos=self.bos, answers=self.answers,
            report=report,
        )  # fmt: skip

    def read(self, run: Run, published: Iterable[str] = ()) -> list[Found]:
        """Every quantity of a run, and the heads among the `published` names where the setting has them."""
        rows = run.rows(self.probe)
        values, places = grid(rows.loc[rows["part"].astype(str) == self.part, :])
        clusters = run.examples()["cluster"].to_numpy()[: len(values)]
        if np.isnan(values).all():
            raise UserError(f"{self.probe} is undefined on every prompt of {run.header['data']['spec']}")
        named = {name: of_head(name) for name in published if self.heads and HEAD_NAME.fullmatch(name)}
        shares = np.where(np.isnan(values), np.nan, values > 0)
        found = [estimate(name, one, values, places, clusters) for name, one in {**self.quantities, **named}.items()]
        plain = [estimate(name, one, shares, places, clusters) for name, one in self.of_shares.items()]
        return [*found, *(one._replace(low=np.nan, high=np.nan) for one in plain)]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A published table: its settings, and its values by model (the last step of a hub id, lower case)."""

    name: str
    title: str
    source: str
    settings: tuple[Setting, ...]
    published: Mapping[str, Mapping[str, float]]
    unlike: str
    """Where this differs from the paper's own measurement, beside the data."""
    examples: int = 100
    models: tuple[str, ...]
    """Hub ids of the paper's models."""
    on_organism: str
    """A command that runs it on a model that comes with the package."""

    def values_for(self, model: Model) -> Mapping[str, float]:
        """The paper's values for a model; none for a model it does not have."""
        return self.published.get(model.name.rstrip("/").split("/")[-1].lower(), {})

    def data_of(self, data: str | None) -> list[str]:
        """The data of each setting, `data` in place of the table's own where that is one and the same for all."""
        own = [one.data for one in self.settings]
        if data is not None and len(set(own)) > 1:
            raise UserError(f"{self.name} is measured on {len(set(own))} data sets; --data can't replace them")
        return own if data is None else [data] * len(own)


@cache
def all_tables() -> dict[str, Table]:
    """Every table by name: those in the files of `reproductions/`."""
    found = {}
    for path in sorted((Path(__file__).parent / "reproductions").glob("*.py")):
        module = importlib.import_module(f".reproductions.{path.stem}", __package__)
        found |= {one.name: one for one in vars(module).values() if isinstance(one, Table)}
    return found


def find_table(name: str) -> Table:
    """The table called `name`."""
    tables = all_tables()
    if name not in tables:
        raise UserError(f"unknown table {name!r}.{near_miss(name, tables)} Expected one of {', '.join(tables)}")
    return tables[name]


def grid(rows: pd.DataFrame) -> tuple[np.ndarray, list[Place]]:
    """Values [example, place], NaN where undefined, and the places; those without any value are left out."""
    groups = rows.groupby(["layer", "head"], dropna=False)
    places = [(_number(layer), _number(head)) for layer, head in groups.size().index.to_list()]
    example = rows["example"].to_numpy()
    values = np.full((int(example.max()) + 1 if len(example) else 0, len(places)), np.nan)
    values[example, groups.ngroup().to_numpy()] = rows["value"].to_numpy(float)
    known = np.flatnonzero(~np.isnan(values).all(0))
    return values[:, known], [places[index] for index in known]


def _number(of: Any) -> int | None:
    return int(of) if isinstance(of, int | float | np.number) and not np.isnan(of) else None


def estimate(name: str, quantity: Quantity, values: np.ndarray, places: Sequence[Place], clusters: np.ndarray) -> Found:
    """A quantity of the means over prompts of values [example, place], with its 95 % interval over clusters."""
    there = ~np.isnan(values).all(1)
    sums, counts = cluster_sums(values[there], clusters[there])
    n = len(sums)

    def of(picks: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return quantity((picks @ sums) / (picks @ counts), places)

    low, high = np.nan, np.nan
    if n >= MIN_CLUSTERS:
        low, high = np.quantile(of(drawn_clusters(n, DRAWS, 0)), [expanded_tail(n), 1 - expanded_tail(n)])
    return Found(name, float(of(np.ones((1, n)))[0]), float(low), float(high), n)


def percent_of(threshold: float) -> Quantity:
    """Share of the places whose mean reaches a threshold, in per cent."""
    return lambda means, places: 100 * (means >= threshold).mean(1)


def number_of(threshold: float) -> Quantity:
    """Number of places whose mean reaches a threshold."""
    return lambda means, places: (means >= threshold).sum(1).astype(float)


def of_head(name: str) -> Quantity:
    """The mean of one head; undefined for a model that has no such head."""

    def mean(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
        place = parse_head(name)
        return means[:, list(places).index(place)] if place in places else np.full(len(means), np.nan)

    return mean


def overall(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """Mean over places."""
    return means.mean(1)


def percent(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """Mean over places, in per cent."""
    return 100 * means.mean(1)


def percent_at_zero(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """Share of the places whose mean is 0, in per cent."""
    return 100 * (means == 0).mean(1)


def largest(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """The largest mean of any place."""
    return means.max(1)


def perplexity(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """exp of a mean loss in nats."""
    return np.exp(means.mean(1))
