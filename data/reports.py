"""The causal reports of a store, found by the links between their runs; headers alone are read.

The header of a run with heads edited names the unedited run, as which condition of a report it stands, and beside which
edited run: `parents: [{"run": ID, "relation": "edit-of", "as": "random", "beside": ID}]`. One run may stand in several
reports: the complement of some heads is the edit of all the others. Where a reading chose the heads, the edited run
names that too: `{"run": ID, "relation": "chosen-by", "reading": "retrieval/score:top=4", "left_out": 12}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .causal import CHOSEN, COMPLEMENT, RANDOM, UNEDITED, CausalReport, report_of
from .errors import StoreError
from .run import HEADER_NAME, Run, read_header

EDIT_OF, CHOSEN_BY = "edit-of", "chosen-by"
Standing = tuple[str, str, str, str]
"""A run, the condition as which it stands, the unedited run, and the edited run it stands beside."""
KEPT = (
    *("kind", "status", "said", "parents", "means", "created", "updated", "dtype", "model", "data", "argv"),
    "budget",
)


@dataclass(frozen=True)
class ReportCard:
    """One report: its edited run, and what the headers say of it."""

    id: str
    """The edited run."""
    runs: Mapping[str, str]
    """condition -> run id, unedited first."""
    header: Mapping[str, Any]
    """Of the edited run."""
    drawn: str
    """What the random sets are, in words; empty where there are none."""

    @property
    def base(self) -> str:
        """The unedited run, which reports on the same prompts share."""
        return self.runs[UNEDITED]

    @property
    def edits(self) -> list[Mapping[str, Any]]:
        """The edits in force, as cards."""
        return list(self.header["first"])

    @property
    def chosen_by(self) -> Mapping[str, Any] | None:
        """The link to the run whose reading chose the heads: run, reading, left_out."""
        return next((one for one in self.header["parents"] if one.get("relation") == CHOSEN_BY), None)


def edit_link(base: str, condition: str = "", beside: str = "") -> dict[str, str]:
    """The entry in `parents` of a run with heads edited."""
    return {"run": base, "relation": EDIT_OF} | _said(**{"as": condition, "beside": beside})


def chosen_link(run: str, reading: str, left_out: int = 0) -> dict[str, Any]:
    """The entry in `parents` of an edited run whose heads a reading of `run` chose."""
    return {"run": run, "relation": CHOSEN_BY, "reading": reading, "left_out": left_out}


def _said(**given: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def reports_in(store: Path) -> list[ReportCard]:
    """Every report of a store whose unedited and edited runs are done, the latest first."""
    headers = dict(_headers(store))
    stands = [one for name in headers for one in _roles(name, headers)]
    chosen = [(name, role, base) for name, role, base, _ in stands if role in CHOSEN and base in headers]
    beside = _controls(stands, headers)
    found = []
    for name, role, base in chosen:
        runs = {UNEDITED: base, role: name} | beside.get((name, base), {})
        drawn = str(headers[runs[RANDOM]]["said"]) if RANDOM in runs else ""
        found.append(ReportCard(name, runs, headers[name], drawn))
    return sorted(found, key=lambda one: (one.header["created"], one.id), reverse=True)


def budgets_in(store: Path) -> list[ReportCard]:
    """Every run of `headatlas budget` of a store that says its orders, the latest first; each stands alone."""
    found = [ReportCard(name, {}, header, "") for name, header in _headers(store) if header["budget"]]
    return sorted(found, key=lambda one: (one.header["created"], one.id), reverse=True)


def stored_report(run: Run) -> CausalReport:
    """The causal report that a run of a store stands in: its edited run, or else the latest report with this run.

    `ha.stored_report(ha.open_store("runs").run(ID))`
    """
    return load_report(find_report(reports_in(run.path.parent), run.id), run.path.parent)


def find_report(reports: list[ReportCard], run: str) -> ReportCard:
    """The report of an edited run, or the latest one that the run stands in."""
    own = [one for one in reports if one.id == run] or [one for one in reports if run in one.runs.values()]
    if not own:
        raise StoreError(
            f"run {run} stands in no causal report; `headatlas edit` writes one, `headatlas show` reads it"
        )
    return own[0]


def load_report(card: ReportCard, store: Path) -> CausalReport:
    """The numbers of a report."""
    return report_of({condition: Run(store / run) for condition, run in card.runs.items()})


def _headers(store: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, what is kept of the header) of every finished run of edited forwards."""
    for path in sorted(store.glob(f"*-edit-*/{HEADER_NAME}")):
        header = _kept(path.parent, path.stat().st_mtime_ns)
        if header["kind"] == "edit" and header["status"] == "done":
            yield path.parent.name, header


@lru_cache(maxsize=4096)
def _kept(folder: Path, _written: int) -> dict[str, Any]:
    """A header less its many sets of heads: `first` is the first of `variants` sets of edits."""
    try:
        header = read_header(folder)
    except StoreError:
        return {"kind": "", "status": "unreadable"}
    edits = header.get("edits") or []
    return {name: header.get(name) for name in KEPT} | {
        "parents": list(header.get("parents") or ()), "variants": len(edits),
        "first": next((one for one in edits if one), []),  # the first set of heads of a budget is empty
    }  # fmt: skip


def _roles(name: str, headers: Mapping[str, dict[str, Any]]) -> Iterator[Standing]:
    """Where a run stands; of one that does not say so in its link, the role is the first word of what it says."""
    header = headers[name]
    first, colon, _ = str(header["said"]).partition(": ")
    told = first if colon and first in (*CHOSEN, RANDOM, COMPLEMENT) else ""
    for link in header["parents"]:
        if link.get("relation") == EDIT_OF and (role := link.get("as") or told):
            yield name, role, link["run"], link.get("beside") or ""


def _controls(stands: list[Standing], headers: Mapping[str, dict[str, Any]]) -> dict[tuple[str, str], dict[str, str]]:
    """(edited run, unedited run) -> condition -> run beside it; of several for a condition the last written.

    A control that names no edited run is that of the only one with such an edit of as many heads, or of none.
    """
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, role, base, _ in stands:
        if role in CHOSEN:
            alike.setdefault((base, _shape(headers[name])), []).append(name)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, role, base, beside in sorted(stands, key=lambda one: (one[1] != RANDOM, headers[one[0]]["created"])):
        if role not in CHOSEN:
            fits = alike.get((base, _shape(headers[name], rest=role == COMPLEMENT)), [])
            owner = beside or (fits[0] if len(fits) == 1 else "")
            found.setdefault((owner, base), {})[role] = name
    return found


def _shape(header: Mapping[str, Any], *, rest: bool = False) -> tuple[str, ...]:
    """Of each edit what it does, and how many heads it has; with `rest` how many it leaves out."""
    model = header["model"]
    every = int(model.get("layers") or 0) * int(model.get("heads") or 0)
    shape = []
    for card in header["first"]:
        count = len(card.get("heads") or ())
        said = sorted((name, value) for name, value in card.items() if name != "heads")
        shape.append(f"{said} {every - count if rest else count}")
    return tuple(shape)
