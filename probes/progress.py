"""How far a run is: a bar with rate and time left on a terminal or in a notebook, lines where output is piped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a run is, in examples, or in forwards of one where each is run several times."""

    run: str
    examples: int
    total: int


Report = Callable[[Progress], None]


@dataclass
class Bar:
    """A context manager to call with each `Progress` of one or more runs of `total` examples together."""

    total: int
    lines: bool = False
    """Where there is no terminal: a line per tenth, or nothing."""
    unit: str = "examples"
    done: int = 0
    tenth: int = 0
    before: dict[str, int] = field(default_factory=dict)
    bar: Any = None

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        console = Console(stderr=True)
        if console.is_terminal or console.is_jupyter:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self.bar = RichProgress(*columns, TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task(self.unit, total=self.total)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far it is."""
        self.done += progress.examples - self.before.get(progress.run, 0)
        self.before[progress.run] = progress.examples
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, description=progress.run)
        elif self.lines and self.total and 10 * self.done // self.total > self.tenth:
            self.tenth = 10 * self.done // self.total
            sys.stderr.write(f"{progress.run}: {self.done} of {self.total} {self.unit}\n")
