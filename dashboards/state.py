"""What the pages share: the store of the running app, and the state of a view as it stands in the URL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flask
from dash import Dash, get_relative_path

from ..data.causal import CausalReport
from ..data.errors import UserError
from ..data.heads import head_name, parse_head
from ..data.reports import ReportCard, find_report, load_report, reports_in
from ..data.store import Run, Store
from .reading import Frame, Reading
from .readings import cards, check_probe, every_reading, per_head, reading_from, strata_of, towers_of

STORE_KEY = "HEADATLAS_STORE"


def keep_store(app: Dash, store: Store) -> None:
    """Ties a store to an app, so that pages know it without a module-level variable."""
    app.server.config[STORE_KEY] = store


def current_store() -> Store:
    """The store of the app that is answering."""
    return flask.current_app.config[STORE_KEY]


def current_run(ref: str | None) -> Run:
    """The run a URL names, `latest` when it names none; the store checks the id, no path is ever taken from a URL."""
    return current_store().run(ref or "latest")


def plain(value: Any) -> str | None:
    """One query value as text; a repeated one counts once, an empty one not at all."""
    if isinstance(value, list):
        value = value[0] if value else None
    return str(value) if value not in (None, "") else None


def flag(value: Any) -> bool:
    """A switch in the URL: on for `1`, `true`, `yes`, `on`."""
    return str(plain(value) or "").lower() in {"1", "true", "yes", "on"}


def one_of(kind: str, value: Any, choices: Iterable[str], default: str) -> str:
    """A choice in the URL, refused with the list of what exists when it is none of them."""
    offered = list(choices)
    text = plain(value) or default
    if text not in offered:
        raise UserError(f"expected {kind}= to be one of {', '.join(offered)}, got {text!r}")
    return text


def count(kind: str, value: Any, most: int) -> int:
    """A whole number in the URL between 0 and `most`."""
    text = plain(value) or "0"
    if not text.isdecimal() or int(text) > most:
        raise UserError(f"expected {kind}= to be a whole number from 0 to {most}, got {text!r}")
    return int(text)


def known_probe(run: Run, value: Any) -> str | None:
    """The probe a URL names, or the one a run is best known by; None when the run has no probe yet."""
    text = plain(value)
    if text is None:
        return headline(run)
    check_probe(run, text)
    return text


def headline(run: Run) -> str | None:
    """The last single reading made for the run's data set that is not 0 everywhere, or else the first there is."""
    known, table = cards(run), _summarised(run.path, str(run.header.get("updated")))
    own = [name for name, card in known.items() if card.get("default_data") == run.header["data"]["name"]]
    single = [name for name in own if not known[name].get("parts")]
    telling = set() if table.empty else set(table.loc[table["mean"].abs() > 0, "probe"])
    told = [name for name in single if name in telling]
    return next(reversed(told or single), next(iter(known), None))


def known_head(value: Any, layers: int, heads: int) -> str | None:
    """The head a URL names, checked against the model's shape."""
    text = plain(value)
    if text is None:
        return None
    layer, head = parse_head(text)
    if layer >= layers or head >= heads:
        last = head_name(layers - 1, heads - 1)
        raise UserError(f"expected a head from L0H0 to {last} (both numbers from zero), got {head_name(layer, head)}")
    return head_name(layer, head)


def known_heads(value: Any, layers: int, heads: int) -> list[str]:
    """The heads a URL names, `L1H0,L1H3`, each checked against the model's shape."""
    named = [known_head(name, layers, heads) for name in (plain(value) or "").split(",")]
    return list(dict.fromkeys(name for name in named if name))


def known_place(table: Frame, query: Mapping[str, Any]) -> tuple[str, str]:
    """The tower and the stratum that a URL names, or the first of each."""
    towers, strata = towers_of(table), strata_of(table)
    tower = one_of("tower", query.get("tower"), towers, towers[0])
    return tower, one_of("stratum", query.get("stratum"), strata, strata[0])


@lru_cache(maxsize=8)
def _summarised(path: Path, _updated: str) -> Frame:
    """The per-head rows of a run as of one moment: a run in progress is summarised once per chunk, not per click."""
    return per_head(Run(path).heads())


def heads_table(run: Run) -> Frame:
    """Every per-head row of a run, or an error that says what to wait for."""
    table = _summarised(run.path, str(run.header.get("updated")))
    if table.empty and run.header.get("kind") == "edit":
        raise UserError(
            f"this run scores the whole model with heads edited; the page Edits shows it, `headatlas show {run.id}` "
            "prints it"
        )
    if table.empty:
        raise UserError("expected readings per head, got none yet: this run has no finished chunk; it fills as it runs")
    return table


def edits_of(run: Run) -> list[ReportCard]:
    """The reports on edits of this run's model: those whose heads a reading of this run chose first."""
    weights = run.header["model"]["digest"]
    found = [one for one in reports_in(run.path.parent) if one.header["model"]["digest"] == weights]
    return sorted(found, key=lambda one: (one.chosen_by or {}).get("run") != run.id)


@lru_cache(maxsize=16)
def _report(store: Path, card: str, _written: tuple[str, ...]) -> CausalReport:
    return load_report(find_report(reports_in(store), card), store)


def report_in(store: Store, card: ReportCard) -> CausalReport:
    """The numbers of a report, computed once per state of its runs."""
    written = tuple(str(Run(store.path / run).header.get("updated")) for run in card.runs.values())
    return _report(store.path, card.id, (*card.runs.values(), *written))


@lru_cache(maxsize=32)
def _every_reading(path: Path, updated: str, stratum: str, tower: str) -> tuple[Reading, ...]:
    return tuple(every_reading(Run(path), _summarised(path, updated), stratum=stratum, tower=tower))


@lru_cache(maxsize=256)
def _compared(path: Path, _updated: str, minus: str, _base: tuple[str, str], probe: str) -> Frame:
    """The per-head rows of one probe against a baseline, as of one moment of both runs."""
    return per_head(Run(path).against(minus, probe))


def _difference(run: Run, base: Run, minus: str, probe: str, **place: str | None) -> Reading:
    moment = (base.id, str(base.header.get("updated")))
    table = _compared(run.path, str(run.header.get("updated")), minus, moment, probe)
    return reading_from(run, table, probe, minus=minus, **place)


def readings_of(run: Run, stratum: str, tower: str, minus: str = "") -> list[Reading]:
    """Every reading of a run in a stratum and tower, computed once per state of the run; against a baseline, those that
    it holds too."""
    plain = list(_every_reading(run.path, str(run.header.get("updated")), stratum, tower))
    if not minus:
        return plain
    base = run.baseline(minus)
    held = [one for one in plain if one.probe in base.header["probes"]]
    return [_difference(run, base, minus, r.probe, part=r.part, stratum=stratum, tower=tower) for r in held]


def head_readings(run: Run, stratum: str, tower: str, minus: str = "") -> list[Reading]:
    """Those of `readings_of` that have a value for each head: readings of whole layers are left out."""
    return [one for one in readings_of(run, stratum, tower, minus) if not one.of_layers]


def reading_of(run: Run, probe: str, part: str | None, stratum: str, tower: str, minus: str = "") -> Reading:
    """One reading of a run, for the pages; against a baseline where one is named."""
    check_probe(run, probe)
    if minus:
        return _difference(run, run.baseline(minus), minus, probe, part=part or None, stratum=stratum, tower=tower)
    found = [r for r in readings_of(run, stratum, tower) if r.probe == probe and (not part or r.part == part)]
    if not found:
        raise UserError(f"expected values of {probe!r} per head at {stratum!r}, got none: choose another stratum")
    return found[0]


def link(path: str, **state: Any) -> str:
    """A URL inside the app that holds the given state; empty values are left out."""
    kept = {key: value for key, value in state.items() if value not in (None, "", False, 0)}
    query = f"?{urlencode(kept)}" if kept else ""
    return f"{get_relative_path(path)}{query}"
