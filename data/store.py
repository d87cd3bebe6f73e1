"""The store: a folder of runs.

    STORE/headatlas-store.json    says that the folder is a store
    STORE/<run_id>/run.json       the header, readable without the tables
    STORE/<run_id>/*.parquet      examples, rows, heads, positions, maps, edges

Listing reads headers alone. There is no index file: the folders are the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .atomic import write_json
from .baselines import kind_of
from .errors import StoreError, near_miss
from .run import HEADER_NAME, Run, read_header, true_status
from .schema import SCHEMA_VERSION, now
from .writer import RunWriter

__all__ = ["MARKER_NAME", "Run", "RunWriter", "Store", "StoreError", "open_store"]

MARKER_NAME = "headatlas-store.json"
"""Name of the file that marks a folder as a store."""

LISTED = (
    *("run_id", "status", "kind", "model", "revision", "data", "spec", "examples", "probes", "layers", "heads"),
    *("baseline", "dtype", "device", "backend", "bos", "seed", "edits", "series", "step"),
    *("created", "updated", "seconds", "error"),
)
"""Columns of `Store.runs()`."""


def open_store(path: str | Path, create: bool = False) -> Store:
    """The store in `path`; with `create`, an empty or absent folder becomes one.

    A folder that holds other things and no run is not a store, and is refused rather than written into.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is not a store: expected a folder; came a file. Name a folder with --store")
    if not folder.exists() and not create:
        raise StoreError(
            f"there is no store at {folder}: the folder does not exist. Measure something first, or check --store"
        )
    marked = (folder / MARKER_NAME).exists()
    if folder.exists() and not marked and not _holds_a_run(folder):
        held = sorted(item.name for item in folder.iterdir())
        if held or not create:
            raise StoreError(
                f"{folder} is not a store: expected {MARKER_NAME} or a run; it holds "
                f"{', '.join(held[:3]) or 'nothing'}{' ...' if len(held) > 3 else ''}. Name another folder with --store"
            )
    if create and not marked:
        _mark(folder)
    return Store(folder)


class Store:
    """A folder of runs; make one with `open_store`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(_run_folders(self.path))} runs)"

    def runs(self) -> pd.DataFrame:
        """One row per run from its header, the latest first; a header that cannot be read has status `unreadable`."""
        rows = [_listing(folder) for folder in _run_folders(self.path)]
        rows.sort(key=lambda row: (row["updated"] or "", row["run_id"]), reverse=True)
        return pd.DataFrame(rows, columns=list(LISTED))

    def run(self, ref: str = "latest", *, holding: str | None = None) -> Run:
        """The run called `ref`: an id, a unique prefix of one, or `latest` (that holds the probe `holding`).

        Baselines, edits and failed runs are meant only where nothing else is: `latest`, or a prefix, is the run rather
        than what it is compared with.
        """
        names = [folder.name for folder in _run_folders(self.path)]
        if ref == "latest":
            runs = self.runs()
            readable = runs[runs["status"] != "unreadable"]
            if readable.empty:
                raise StoreError(f"the store {self.path} holds no readable run. Measure something first")
            sound = readable.loc[readable["status"] != "failed", :]
            readable = readable if sound.empty else sound
            own = [
                name
                for name, kind, base in zip(readable["run_id"], readable["kind"], readable["baseline"], strict=True)
                if kind != "edit" and not isinstance(base, str)
            ]
            order = [Run(self.path / name) for name in own or readable["run_id"]]
            return next((one for one in order if holding in one.header["probes"]), order[0]) if holding else order[0]
        if ref in names:
            return Run(self.path / ref)
        found = [name for name in names if ref and name.startswith(ref)]
        if len(found) > 1:
            found = [name for name in found if not _listing(self.path / name)["baseline"]] or found
        if len(found) > 1:
            raise StoreError(
                f"{ref!r} could be {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}. Give more of the id"
            )
        if not found:
            raise StoreError(
                f"no run {ref!r} in {self.path}.{near_miss(ref, names)} "
                f"Expected an id, a unique prefix or latest; the store holds {len(names)} runs"
            )
        return Run(self.path / found[0])

    def writer(self, header: Mapping[str, Any]) -> RunWriter:
        """The one writer of the run that `header` describes, created or resumed."""
        return RunWriter(self.path, header)


def _mark(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"could not make the store {folder}: {error.strerror or error}") from error
    write_json(folder / MARKER_NAME, {"headatlas_store": SCHEMA_VERSION, "created": now()})


def _run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{HEADER_NAME}"))


def _holds_a_run(folder: Path) -> bool:
    return any(_listing(run)["status"] != "unreadable" for run in _run_folders(folder))


def _listing(folder: Path) -> dict[str, Any]:
    """One row of `Store.runs()`, from the header alone."""
    row: dict[str, Any] = dict.fromkeys(LISTED) | {"run_id": folder.name}
    try:
        header = read_header(folder)
        model, data = header["model"], header["data"]
        row |= {key: header[key] for key in LISTED if key in header}
        row |= {"run_id": folder.name, "status": true_status(folder, header), "model": model["name"]}
        row |= {key: model.get(key) for key in ("revision", "layers", "heads")}
        row |= {"data": data["name"], "spec": data["spec"], "examples": data["examples"]}
        row |= {"probes": len(header["probes"]), "edits": len(header.get("edits") or [])}
        row["baseline"] = kind_of(header)
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        row |= {"status": "unreadable", "error": str(error)}
    return row
