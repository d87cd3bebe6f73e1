"""The one writer of a run: adds immutable parts, and can stop at any moment without losing or doubling a row.

A chunk is `chunk_size` consecutive examples. Its rows are what marks a chunk as done, so positions and maps of a chunk
are written before its rows; whoever resumes does only what `done` does not name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import pyarrow as pa

from . import columns
from .atomic import remove_leftovers, write_json, write_table
from .errors import StoreError
from .lock import RunLock
from .parts import first_claims, list_parts, part_name, read_table
from .run import HEADER_NAME, Run, read_header
from .schema import STATUSES, check_header, chunk_count, header_to_write, now, run_id

TEXT_LIMIT = 400
"""Characters of each example's text that are kept."""


class RunWriter:
    """Creates or resumes one run; a context manager that records failure and interruption in the header.

    On resume the stored `chunk_size` and `keep_positions` hold, whatever the new header says: read `writer.header`.
    """

    def __init__(self, store: Path, header: Mapping[str, Any]) -> None:
        check_header(header)
        self.path = store / run_id(header)
        _make_folder(self.path)
        self._lock = RunLock(self.path)
        self._started = time.monotonic()
        try:
            remove_leftovers(self.path)
            stored = read_header(self.path) if (self.path / HEADER_NAME).exists() else None
            self.header = header_to_write(self.path.name, header, stored)
            self._done = _held(self.path)
            self._save()
        except BaseException:
            self._lock.release()
            raise
        self.finished = False

    @property
    def run(self) -> Run:
        """A reader of the run being written."""
        return Run(self.path)

    def done(self, chunk: int) -> set[str]:
        """The probes whose rows of this chunk are on disk."""
        return set(self._done.get(chunk, ()))

    def write_examples(self, frame: pd.DataFrame) -> None:
        """The table of examples, once; on resume the ids must be the ones already stored."""
        frame = frame.assign(text=frame["text"].astype(str).str.slice(0, TEXT_LIMIT))
        table = columns.conditions_table(frame)
        if table["example"].to_pylist() != list(range(int(self.header["data"]["examples"]))):
            raise StoreError(
                f"expected examples 0..{self.header['data']['examples'] - 1} in order; came {len(table)} rows"
            )
        path = self.path / "examples.parquet"
        if not path.exists():
            write_table(path, table, metadata={})
        elif read_table(path)["id"].to_pylist() != table["id"].to_pylist():
            raise StoreError(f"run {self.path.name} holds other examples than these; use another store or seed")

    def write_rows(self, chunk: int, rows: Mapping[str, Any] | pd.DataFrame, probes: Iterable[str]) -> None:
        """The values of one chunk for a set of probes; each probe of a chunk is written once."""
        names = sorted(set(probes))
        twice = sorted(set(names) & self.done(chunk))
        unknown = sorted(set(names) - set(self.header["probes"]))
        if twice or unknown or not names:
            raise StoreError(
                f"chunk {chunk}: expected probes of the header, once each; twice {twice}, not known {unknown}"
            )
        table = columns.table_of(rows, columns.ROWS)
        self._check_rows(chunk, table, names)
        self._write("rows", chunk, table, names)
        self._done.setdefault(chunk, set()).update(names)
        self._save()

    def write_positions(self, chunk: int, rows: Mapping[str, Any] | pd.DataFrame) -> None:
        """Per-token lists of one chunk; call it before `write_rows` of the same chunk."""
        table = columns.table_of(rows, columns.POSITIONS)
        self._write("positions", chunk, table, _names(table, "probe"))

    def write_maps(self, chunk: int, rows: Mapping[str, Any] | pd.DataFrame) -> None:
        """Block-pooled maps of one chunk; call it before `write_rows` of the same chunk."""
        table = columns.table_of(rows, columns.MAPS)
        self._write("maps", chunk, table, _names(table, "kind"))

    def write_edges(self, rows: Mapping[str, Any] | pd.DataFrame) -> None:
        """The edges of a circuit, one part per set of methods."""
        table = columns.table_of(rows, columns.EDGES)
        self._write("edges", 0, table, _names(table, "method"))

    def finish(self, status: str, error: str | None = None) -> None:
        """Write heads.parquet and the final header, and let the run go; `done` needs every promised chunk."""
        if status not in STATUSES or status == "running":
            raise ValueError(f"expected a status of {STATUSES[1:]}; came {status!r}")
        missing = self.run.missing()
        if status == "done" and len(missing):
            first = missing.iloc[0]
            raise StoreError(
                f"run {self.path.name} is not done: {len(missing)} chunks are missing, first chunk {first['chunk']} of "
                f"{first['probe']}. Write them, or finish as interrupted"
            )
        self.header["seconds"] = float(self.header.get("seconds") or 0.0) + time.monotonic() - self._started
        reason = None if error is None else error.splitlines()[0]
        if status == "done":
            self.write_heads()
            self._save(status=status, error=reason)
        else:
            self._save(status=status, error=reason)
            with suppress(StoreError):
                self.write_heads()
        self.close()

    def write_heads(self) -> None:
        """Summarise the rows on disk into heads.parquet."""
        run = self.run
        parts = run.parts()
        if parts and (self.path / "examples.parquet").exists():
            write_table(self.path / "heads.parquet", run.summary(), metadata={"parts": parts})

    def close(self) -> None:
        """Let the run go without touching its header."""
        self.finished = True
        self._lock.release()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.finished:
            return
        try:
            if error is None:
                self.finish("interrupted" if len(self.run.missing()) else "done")
                return
            status = "failed" if isinstance(error, Exception) else "interrupted"
            with suppress(Exception):
                self.finish(status, f"{type(error).__name__}: {error}")
        finally:
            self.close()

    def _save(self, *, status: str = "running", error: str | None = None) -> None:
        counts = {name: sum(name in held for held in self._done.values()) for name in self.header["probes"]}
        self.header |= {"status": status, "error": error, "updated": now()}
        self.header["progress"] = {"chunks": chunk_count(self.header), "done": counts}
        write_json(self.path / HEADER_NAME, self.header)

    def _write(self, kind: str, chunk: int, table: pa.Table, keys: list[str]) -> None:
        path = self.path / part_name(kind, chunk, keys)
        write_table(path, table, metadata={"chunk": int(chunk), "keys": keys})

    def _check_rows(self, chunk: int, table: pa.Table, names: list[str]) -> None:
        """Rows must be of this chunk's examples and of the probes named."""
        size, total = int(self.header["chunk_size"]), int(self.header["data"]["examples"])
        low, high = chunk * size, min((chunk + 1) * size, total)
        examples = table["example"].to_numpy()
        if not 0 <= chunk < chunk_count(self.header) or (
            len(examples) and not low <= examples.min() <= examples.max() < high
        ):
            came = f"{examples.min()}..{examples.max()}" if len(examples) else "none"
            raise StoreError(f"chunk {chunk}: expected examples {low}..{high - 1} of {total}; came {came}")
        stray = sorted(set(_names(table, "probe")) - set(names))
        if stray:
            raise StoreError(f"chunk {chunk}: expected rows of {', '.join(names)}; came rows of {', '.join(stray)}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"could not make {path}: {error.strerror or error}") from error


def _held(folder: Path) -> dict[int, set[str]]:
    """chunk -> probes on disk; an unreadable part is an error, since its rows would otherwise be lost unseen."""
    held: dict[int, set[str]] = {}
    for part, keys in first_claims(list_parts(folder, "rows")):
        held.setdefault(part.chunk, set()).update(keys)
    return held


def _names(table: pa.Table, column: str) -> list[str]:
    return sorted(table[column].cast(pa.string()).unique().to_pylist())
