"""What the verbs of every room share: help that teaches, counts that are checked, tables that fit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from math import isfinite

PIPED = 240
"""Characters a table may be wide where the output is a file or a pipe."""


def teach(parser: argparse.ArgumentParser, description: str, epilog: str) -> None:
    """Say what a verb does and show it at work; the lines stay as they are written."""
    parser.description, parser.epilog = description, epilog
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that counts from `least`."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more; came {text!r}")
        return int(text)

    return count


def number_above(bound: float, *, or_equal: bool = False) -> Callable[[str], float]:
    """The type of an argument that is a number above `bound`."""

    def number(text: str) -> float:
        with suppress(ValueError):
            value = float(text)
            if isfinite(value) and (value > bound or (or_equal and value == bound)):
                return value
        said = f"of {bound:g} or more" if or_equal else f"above {bound:g}"
        raise argparse.ArgumentTypeError(f"expected a number {said}; came {text!r}")

    return number


def screen_lines() -> int:
    """Lines of the terminal; endless in a file or a pipe."""
    from rich.console import Console

    console = Console()
    return console.size.height if console.is_terminal else sys.maxsize


def print_table(names: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[str] = ()) -> None:
    """A table as wide as the terminal, or as it needs in a file or a pipe; the columns `right` end at the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
