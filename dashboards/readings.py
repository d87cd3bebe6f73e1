"""The readings a run holds: its parts, strata and towers, and the one or all of them as `Reading`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..data.errors import UserError, near_miss
from ..data.heads import head_name
from ..data.store import Run
from .reading import Frame, Reading, add_ranks

COLUMNS = {"layer": "layer", "head": "head", "value": "mean", "low": "ci_low", "high": "ci_high", "n": "n",
           "reliability": "reliability"}  # fmt: skip
"""What a reading calls the columns of a heads table."""
COMPARED = {"layer": "layer", "head": "head", "value": "difference", "low": "ci_low", "high": "ci_high", "n": "n",
            "mean": "mean", "baseline": "baseline", "effect": "effect", "q": "q"}  # fmt: skip
"""What it calls those of a comparison with a baseline."""


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
    """The rows that belong to a head, and those of layers where a probe has no others, with plain column types.

    `whole` marks rows of layers, whose head is 0 here; a whole model has no row.
    """
    table = table[table["layer"].notna()]
    of_heads = set(table.loc[table["head"].notna(), "probe"])
    table = table[table["head"].notna() | ~table["probe"].isin(of_heads)]
    text = {column: table[column].astype(str) for column in ("probe", "part", "tower", "stratum")}
    whole = table["head"].isna().to_numpy(bool)
    return table.assign(layer=table["layer"].astype(int), head=table["head"].fillna(0).astype(int), whole=whole, **text)


def read(
    run: Run,
    probe: str,
    *,
    part: str | None = None,
    stratum: str | None = None,
    tower: str | None = None,
    minus: str = "",
) -> Reading:
    """The reading of a run that was asked for; parts, strata and towers left out take the first there is."""
    check_probe(run, probe)
    table = per_head(run.against(minus, probe) if minus else run.heads(probe))
    return reading_from(run, table, probe, part=part, stratum=stratum, tower=tower, minus=minus)


def reading_from(
    run: Run,
    table: Frame,
    probe: str,
    *,
    part: str | None = None,
    stratum: str | None = None,
    tower: str | None = None,
    minus: str = "",
) -> Reading:
    """A reading out of a heads table that holds `probe`, or of a comparison where a baseline is subtracted."""
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
    of_layers = bool(rows["whole"].all())
    named = COMPARED if minus else COLUMNS
    flat = pd.DataFrame({name: rows[column].to_numpy() for name, column in named.items()})
    places = zip(flat["layer"], flat["head"], strict=True)
    flat.insert(2, "name", [head_name(layer, None if of_layers else head) for layer, head in places])
    ranked = add_ranks(flat, by_size=bool(minus))
    return Reading(probe, part, stratum, tower, cards(run)[probe], layers, heads, kv_heads, ranked, minus, of_layers)


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
