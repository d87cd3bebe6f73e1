"""A handle on one run: its header, and its tables as pandas frames.

Reading takes no lock and never changes a file: parts are immutable and appear whole, so a run can be read while it is
being written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from . import columns
from .baselines import KINDS, kind_words, links_of
from .command import resume_command
from .errors import StoreError, near_miss
from .lock import LOCK_NAME, is_alive, read_owner
from .parts import first_claims, list_parts, metadata, read_parts, read_table
from .schema import SCHEMA_VERSION, chunk_count, run_id

HEADER_NAME = "run.json"
"""Name of the header inside a run's folder."""


class Run:
    """One model, one data set, one set of edits: what was measured.

    `header` is read from the file each time, so that a run in progress shows its progress.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        read_header(path)

    def __repr__(self) -> str:
        header = self.header
        probes = len(header.get("probes", {}))
        return f"Run({self.id!r}, {self.status}, {header['data']['examples']} examples, {probes} probes)"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was run, and the three highest heads of each probe."""
        from .ranking import readable, top_heads

        header = self.header
        line = f"{header['model']['name']} on {header['data']['spec']}, {header['data']['examples']} examples"
        table = readable(top_heads(self.heads(), 3))
        return f"<p><b>{escape(self.id)}</b> ({self.status})<br>{escape(line)}</p>{table.to_html(index=False)}"

    @property
    def header(self) -> dict[str, Any]:
        """What was run on what, without touching any table."""
        return read_header(self.path)

    @property
    def status(self) -> str:
        """running, done, failed or interrupted; a running header without a living writer is interrupted."""
        return true_status(self.path, self.header)

    def examples(self) -> pd.DataFrame:
        """One row per example: example, id, dataset, cluster, tokens, text, token_ids, and `c_<name>` per condition."""
        path = self.path / "examples.parquet"
        if not path.exists():
            raise StoreError(
                f"run {self.id} holds no examples yet: expected examples.parquet; its status is {self.status}. "
                "Give the same measure command again"
            )
        return read_table(path).to_pandas()

    def rows(self, probe: str | None = None, *, layer: int | None = None, head: int | None = None) -> pd.DataFrame:
        """Measured values, one row per example, probe, part and head; NaN where a probe was undefined."""
        self.check_probe(probe)
        where = _where(probe=probe, layer=layer, head=head)
        return columns.frame_of(read_parts(self.path, "rows", columns.ROWS, key="probe", where=where, only=probe))

    def heads(self, probe: str | None = None, part: str | None = None, stratum: str | None = None) -> pd.DataFrame:
        """Mean, 95 % interval, clusters and reliability per head and stratum; computed anew if rows came since."""
        self.check_probe(probe)
        table = self._heads_table()
        where = _where(probe=probe, part=part, stratum=stratum)
        return columns.frame_of(table if where is None else table.filter(where)).reset_index(drop=True)

    def kv_heads(self, probe: str | None = None, *, together: str = "max") -> pd.DataFrame:
        """As `heads`, with the query heads of each KV head as one: their `max` or `mean`."""
        from .kv import kv_heads

        return kv_heads(self, probe, together=together)

    def baselines(self) -> dict[str, Run]:
        """kind -> run of each baseline of this run in the same store: random weights, shuffled tokens."""
        found: dict[str, Run] = {}
        for path in sorted(self.path.parent.glob(f"*/{HEADER_NAME}"), key=lambda path: path.stat().st_mtime_ns):
            with suppress(StoreError):
                links = links_of(read_header(path.parent))
                found |= {one["kind"]: Run(path.parent) for one in links if one["run"] == self.id}
        return {kind: found[kind] for kind in KINDS if kind in found}

    def baseline(self, kind: str) -> Run:
        """The baseline `random` or `shuffled` of this run; an error that names the command where there is none."""
        if kind not in KINDS:
            raise StoreError(f"unknown baseline {kind!r}.{near_miss(kind, KINDS)} Expected one of {', '.join(KINDS)}")
        header, found = self.header, self.baselines()
        if kind in found:
            return found[kind]
        if links := links_of(header):
            raise StoreError(
                f"run {self.id} is itself a baseline, the {kind_words(links[0])} of {links[0]['run']}; name that run"
            )
        command = resume_command(header, self.path.parent, baselines=True)
        raise StoreError(
            f"run {self.id} has no baseline {kind!r} ({KINDS[kind]}); it has {', '.join(found) or 'none'}. "
            f"`{command}` measures it"
        )

    def against(
        self, kind: str, probe: str | None = None, *, part: str | None = None, stratum: str | None = None
    ) -> pd.DataFrame:
        """Each head against the baseline `random` or `shuffled`, at the same examples: layer, head, part, tower,
        stratum, mean, baseline, difference, ci_low, ci_high, n, effect, q. `data/against.py` says what each is.
        """
        from .against import compare_runs

        return compare_runs(self, self.baseline(kind), kind, probe, part=part, stratum=stratum)

    def summary(self) -> pa.Table:
        """The heads table, computed from the rows that are there."""
        from .summary import summarise

        return columns.table_of(summarise(self.header, self.examples(), self.rows), columns.HEADS)

    def positions(
        self, probe: str | None = None, *, example: int | None = None, layer: int | None = None, head: int | None = None
    ) -> pd.DataFrame:
        """Per-token lists of the first `keep_positions` examples; `axis` is query or key."""
        where = _where(probe=probe, example=example, layer=layer, head=head)
        return columns.frame_of(
            read_parts(self.path, "positions", columns.POSITIONS, key="probe", where=where, only=probe)
        )

    def maps(
        self, *, example: int | None = None, layer: int | None = None, head: int | None = None, kind: str | None = None
    ) -> pd.DataFrame:
        """Block-pooled attention maps, `values` row-major over [rows, cols]."""
        where = _where(example=example, layer=layer, head=head, kind=kind)
        return columns.frame_of(read_parts(self.path, "maps", columns.MAPS, key="kind", where=where, only=kind))

    def edges(self) -> pd.DataFrame:
        """The edges of a circuit: source, target, score, kept, task, method."""
        return columns.frame_of(read_parts(self.path, "edges", columns.EDGES, key="method"))

    def missing(self) -> pd.DataFrame:
        """What the header promises and no part holds: probe, chunk."""
        header = self.header
        held = {(key, part.chunk) for part, keys in first_claims(list_parts(self.path, "rows")) for key in keys}
        promised = ((probe, chunk) for probe in header["probes"] for chunk in range(chunk_count(header)))
        return pd.DataFrame([pair for pair in promised if pair not in held], columns=["probe", "chunk"])

    def parts(self) -> list[str]:
        """Names of the row parts in use, by name: what `heads` must have been computed from to be current."""
        return [part.path.name for part, _ in first_claims(list_parts(self.path, "rows"))]

    def _heads_table(self) -> pa.Table:
        path = self.path / "heads.parquet"
        parts = self.parts()
        if path.exists() and metadata(path).get("parts") == parts:
            return read_table(path, columns.HEADS)
        return _computed_heads(self.path, tuple(parts))

    def check_probe(self, probe: str | None) -> None:
        """Refuse a probe that the run does not hold, with the closest one."""
        known = self.header["probes"]
        if probe is not None and probe not in known:
            raise StoreError(
                f"run {self.id} holds no probe {probe!r}.{near_miss(probe, known)} "
                f"It holds {', '.join(known) or 'none'}"
            )


@lru_cache(maxsize=8)
def _computed_heads(path: Path, parts: tuple[str, ...]) -> pa.Table:
    return Run(path).summary() if parts else columns.HEADS.empty_table()


def finished(store: Path, header: Mapping[str, Any]) -> Run | None:
    """The run of a header if the store holds all of it: done, with every probe that the header names."""
    path = store / run_id(header)
    if not (path / HEADER_NAME).exists():
        return None
    run = Run(path)
    return run if run.status == "done" and set(header["probes"]) <= set(run.header["probes"]) else None


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the run in `folder`; a missing, garbled or newer one is an error that names it."""
    path = folder / HEADER_NAME
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        version = header["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder.name}/{HEADER_NAME} cannot be read: expected a run's header; {error!r}") from error
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{folder.name}/{HEADER_NAME} has schema version {version}; this headatlas reads version {SCHEMA_VERSION}. "
            "Read it with the headatlas that wrote it, or measure again"
        )
    return header


def true_status(folder: Path, header: dict[str, Any]) -> str:
    """The header's status, except that a run nobody is writing any more is interrupted, not running."""
    status = header.get("status", "unreadable")
    if status != "running":
        return status
    owner = read_owner(folder / LOCK_NAME)
    return "running" if owner and is_alive(owner) else "interrupted"


def _where(**wanted: str | int | None) -> pc.Expression | None:
    """The conjunction of `column == value` over the values given, as a filter parquet can push down."""
    condition = None
    for name, value in wanted.items():
        if value is not None:
            equal = pc.field(name) == value
            condition = equal if condition is None else condition & equal
    return condition
