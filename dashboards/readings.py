"""A reading: one probe of one run, in one part, stratum and tower, as a table with a row per head and its rank.

Rank 1 is the highest value; ties share the better rank. The percentile is the share of defined heads below a head plus
half of those equal to it, so the middle head stands at 50. Heads where the probe is undefined have neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ..data.errors import UserError, near_miss
from ..data.store import Run

Frame: TypeAlias = Any
"""A pandas DataFrame, or a selection of one; pandas' own annotations cannot tell which a selection gives."""

HEAD_NAME = re.compile(r"L(\d{1,4})H(\d{1,4})", re.IGNORECASE)


def head_name(layer: int, head: int) -> str:
    """The display name of a head, zero-based: `L5H1`."""
    return f"L{layer}H{head}"


def parse_head(name: str) -> tuple[int, int]:
    """The (layer, head) of a display name."""
    match = HEAD_NAME.fullmatch(str(name).strip())
    if match is None:
        raise UserError(f"expected a head like L5H1 (layer 5, head 1, both from zero), got {name!r}")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Reading:
    """One value per head, with what is needed to draw and to explain it."""

    probe: str
    part: str
    stratum: str
    tower: str
    card: Mapping[str, Any]
    layers: int
    heads: int
    kv_heads: int
    table: Frame
    """layer, head, name, value, low, high, n, rank, percentile, reliability; in order of layer and head."""

    @property
    def title(self) -> str:
        """The card's title, with the part where the probe has several."""
        title = str(self.card.get("title") or self.probe)
        return f"{title} · {self.part}" if self.part else title

    @property
    def unit(self) -> str:
        """The card's unit, empty where it has none."""
        return str(self.card.get("unit") or "")

    @property
    def sharing(self) -> int:
        """Query heads that share one key-value head; 1 where each has its own."""
        return self.heads // self.kv_heads if 0 < self.kv_heads < self.heads else 1

    @cached_property
    def ranked(self) -> int:
        """How many heads have a value, the N of `rank k of N`."""
        return int(self.table["value"].notna().sum())

    @property
    def signed(self) -> bool:
        """Whether the values live on both sides of a meaningful zero."""
        low, high = bounds(self.card)
        return low is not None and low < 0 and (high is None or high > 0)

    def grid(self, column: str) -> np.ndarray:
        """A column of the table as a [layer, head] matrix, NaN where there is no row."""
        matrix = np.full((self.layers, self.heads), np.nan)
        matrix[self.table["layer"], self.table["head"]] = self.table[column].to_numpy(float)
        return matrix

    def top(self, count: int) -> Frame:
        """The rows of the `count` highest heads, highest first."""
        return self.table.dropna(subset=["value"]).sort_values(["rank", "layer", "head"]).head(count)


def row_in(reading: Reading, name: str) -> Frame:
    """The head's row in a reading, None where it was not measured."""
    layer, head = parse_head(name)
    at = np.flatnonzero((reading.table["layer"].to_numpy() == layer) & (reading.table["head"].to_numpy() == head))
    return reading.table.iloc[at[0]] if at.size else None


def standing(reading: Reading, name: str) -> tuple[int, float]:
    """How much a head stands out, for sorting: tenths of the way to an end of the ranking, then distance in MADs.

    A percentile alone would put the lowest of many equal heads level with the one head that does something.
    """
    row = row_in(reading, name)
    if row is None or not np.isfinite(row["value"]):
        return -1, 0.0
    value = reading.table["value"].dropna()
    middle = float(value.median())
    spread = float((value - middle).abs().median()) or float(value.std()) or 1.0
    return round(abs(row["percentile"] - 50) / 10), abs(row["value"] - middle) / spread


def by_standing(readings: list[Reading], name: str) -> list[Reading]:
    """Readings with the one in which this head stands out most first, undefined ones last."""
    return sorted(readings, key=lambda reading: (*(-x for x in standing(reading, name)), reading.title))


def bounds(card: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The lowest and highest value a probe can take; None where it is open."""
    low, high = (*(card.get("bounds") or (None, None)), None, None)[:2]
    return (None if low is None else float(low)), (None if high is None else float(high))


def add_ranks(table: Frame) -> Frame:
    """The table with `rank` (1 = highest) and `percentile` columns over its defined values."""
    value = table["value"]
    count = max(int(value.notna().sum()), 1)
    return table.assign(
        rank=value.rank(ascending=False, method="min"),
        percentile=100 * (value.rank(method="average") - 0.5) / count,
    )


def strata_of(table: Frame) -> list[str]:
    """The strata of a heads table: the coarse ones first, numbers in numeric order."""

    def key(stratum: str) -> tuple[int, list[tuple[int, float, str]]]:
        parts = re.split(r"(\d+(?:\.\d+)?)", stratum)
        return stratum.count(";"), [(1, float(p), "") if p[:1].isdigit() else (0, 0.0, p) for p in parts]

    return sorted(table["stratum"].astype(str).unique(), key=key)


def towers_of(table: Frame) -> list[str]:
    """The towers of a heads table, as they come."""
    return list(dict.fromkeys(table["tower"]))


def parts_of(table: Frame, probe: str | None) -> list[str]:
    """The parts of a probe in a heads table, as they come."""
    return list(dict.fromkeys(table.loc[table["probe"] == probe, "part"]))


def pick(kind: str, wanted: str | None, offered: list[str]) -> str:
    """The wanted choice, the first one when none was named, or an error that lists them."""
    if wanted is None:
        return offered[0]
    if wanted not in offered:
        raise UserError(f"expected a {kind} among {', '.join(map(repr, offered))}, got {wanted!r}")
    return wanted


def cards(run: Run) -> dict[str, Mapping[str, Any]]:
    """The probe cards of a run by name, grouped by family, in the order of their titles."""
    stored = run.header.get("probes") or {}
    ordered = sorted(stored, key=lambda name: (stored[name].get("family") or "", stored[name].get("title") or name))
    return {name: stored[name] for name in ordered}


def check_probe(run: Run, probe: str) -> None:
    """Refuse a probe that the run does not have, with the closest one."""
    known = cards(run)
    if probe not in known:
        offered = ", ".join(known) or "none yet"
        raise UserError(f"expected a probe of this run, got {probe!r}.{near_miss(probe, known)} It has {offered}.")


def shape_of(run: Run, tower: str) -> tuple[int, int, int]:
    """Layers, heads and kv heads of a tower, as the header declares them."""
    model = run.header.get("model") or {}
    named = {str(t.get("name")): t for t in model.get("towers") or []}
    facts = {**model, **named.get(tower, {})}
    layers, heads = int(facts.get("layers") or 0), int(facts.get("heads") or 0)
    return layers, heads, int(facts.get("kv_heads") or heads)


def per_head(table: Frame) -> Frame:
    """The rows that belong to a head, with plain column types (layer and model readings have no head)."""
    table = table[table["layer"].notna() & table["head"].notna()]
    text = {column: table[column].astype(str) for column in ("probe", "part", "tower", "stratum")}
    return table.assign(layer=table["layer"].astype(int), head=table["head"].astype(int), **text)


def read(
    run: Run, probe: str, *, part: str | None = None, stratum: str | None = None, tower: str | None = None
) -> Reading:
    """The reading of a run that was asked for; parts, strata and towers left out take the first there is."""
    check_probe(run, probe)
    return reading_from(run, per_head(run.heads(probe)), probe, part=part, stratum=stratum, tower=tower)


def reading_from(
    run: Run,
    table: Frame,
    probe: str,
    *,
    part: str | None = None,
    stratum: str | None = None,
    tower: str | None = None,
) -> Reading:
    """A reading out of a heads table that holds `probe`."""
    rows = table[table["probe"] == probe]
    if rows.empty:
        raise UserError(f"expected values per head for {probe!r}, got none yet: let the run go on, or measure it again")
    tower = pick("tower", tower, towers_of(rows))
    rows = rows[rows["tower"] == tower]
    part = pick("part", part, parts_of(rows, probe))
    rows = rows[rows["part"] == part]
    stratum = pick("stratum", stratum, strata_of(rows))
    rows = rows[rows["stratum"] == stratum].sort_values(["layer", "head"])
    layers, heads, kv_heads = shape_of(run, tower)
    layers, heads = max(layers, int(rows["layer"].max()) + 1), max(heads, int(rows["head"].max()) + 1)
    flat = pd.DataFrame(
        {
            "layer": rows["layer"].to_numpy(),
            "head": rows["head"].to_numpy(),
            "name": [head_name(a, b) for a, b in zip(rows["layer"], rows["head"], strict=True)],
            "value": rows["mean"].to_numpy(float),
            "low": rows["ci_low"].to_numpy(float),
            "high": rows["ci_high"].to_numpy(float),
            "n": rows["n"].to_numpy(),
            "reliability": rows["reliability"].to_numpy(float),
        }
    )
    return Reading(probe, part, stratum, tower, cards(run)[probe], layers, heads, kv_heads, add_ranks(flat))


def every_reading(run: Run, table: Frame, *, stratum: str | None = None, tower: str | None = None) -> list[Reading]:
    """All readings in a per-head table that exist in a stratum and tower, probe by probe and part by part."""
    if table.empty:
        return []
    tower = pick("tower", tower, towers_of(table))
    table = table[table["tower"] == tower]
    stratum = pick("stratum", stratum, strata_of(table))
    table = table[table["stratum"] == stratum]
    found = []
    for probe in cards(run):
        for part in parts_of(table, probe):
            found.append(reading_from(run, table, probe, part=part, stratum=stratum, tower=tower))
    return found
