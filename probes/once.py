"""A run that is made once: as the store holds it, or made, written and finished, by one process at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from ..data.errors import LockedError
from ..data.run import Run, finished
from ..data.store import RunWriter, open_store
from .progress import Progress, Report

POLL = 0.5
"""Seconds between two looks at a run that another process writes."""


class Prompted(Protocol):
    """What a plan of forwards offers."""

    @property
    def frame(self) -> pd.DataFrame:
        """The store's table of examples."""
        ...


class Planned(Protocol):
    """A plan of a run to be."""

    @property
    def plan(self) -> Prompted:
        """Its prompts."""
        ...

    def header(self) -> dict[str, Any]:
        """The run's header before its first row."""
        ...


Tell = Callable[[int], None]
"""Hears how many steps more are done."""


def stored(plan: Planned, store: str | Path) -> Run | None:
    """The run of this plan if the store holds all of it, its links and the orders of a budget too."""
    header = plan.header()
    run = finished(Path(store), header)
    if run is None or ("budget" in header and run.header.get("budget") != header["budget"]):
        return None
    known = run.header.get("parents") or []
    return run if all(one in known for one in header["parents"]) else None


def made_once(
    plan: Planned,
    store: str | Path,
    work: Callable[[RunWriter, Tell], None],
    *,
    steps: int,
    report: Report | None = None,
) -> Run:
    """The stored run of this plan, or what `work` writes; it does only what the writer does not hold yet.

    Where another process on this machine writes that run, it is waited for, and what it made is taken. `work` tells its
    `steps`, of which `report` hears.
    """
    told, done = False, 0
    while (held := stored(plan, store)) is None:
        try:
            writer = open_store(store, create=True).writer(plan.header())
        except LockedError as locked:
            if not locked.here:
                raise
            if not told:
                sys.stderr.write(f"{locked.run}: waiting for {locked.who}, which is making this run; Ctrl-C stops\n")
            told = True
            time.sleep(POLL)
            continue

        def tell(more: int, run: str = writer.path.name) -> None:
            nonlocal done
            done += more
            if report is not None:
                report(Progress(run, done, steps))

        with writer:
            writer.write_examples(plan.plan.frame)
            work(writer, tell)
            writer.finish("done")
            return writer.run
    return held
