"""The kinds of edits there are, and how one is added: a decorated function in a file of this folder."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

REQUIRED = object()
"""In `takes`: there is no default."""


@dataclass(frozen=True)
class Kind:
    """One kind of edit: what it takes, and what it does.

    `weights`: apply(inputs, edit, place) -> inputs, another attention call. `output`: apply(output, inputs, edit,
    place) -> output [batch, head, query, d_head]. Both see the edited heads alone, each with its own keys and values.
    """

    name: str
    level: Literal["weights", "output"]
    takes: dict[str, Any]
    summary: str
    apply: Callable[..., Any]
    check: Callable[[Any], str | None] | None = None
    needs: str = ""
    """What beside the prompt it needs: `means`, `partner` or `rotary` (positions that a query can be turned by)."""
    prompt_only: str = ""
    """Why it can't hold in a decode step; empty where it can."""
    keeps: Callable[..., Any] | None = None
    """keeps(inputs, edit, place) -> bool [batch, query], rows that stay as they are; None where there are none."""


_KINDS: dict[str, Kind] = {}


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind by name: the decorated functions of this folder's files."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        importlib.import_module(f".{path.stem}", __package__)
    return _KINDS


def edits(
    level: Literal["weights", "output"],
    *,
    needs: str = "",
    check: Any = None,
    prompt_only: str = "",
    keeps: Any = None,
    **takes: Any,
) -> Any:
    """Make a kind of a function; its name and summary are the function's."""

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.rstrip("_")
        summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        _KINDS[name] = Kind(name, level, takes, summary, function, check, needs, prompt_only, keeps)
        return function

    return make


def positive(edit: Any) -> str | None:
    """A check: the amount must be above 0."""
    return None if edit.amount > 0 else f"expected an amount above 0, came {edit.amount:g}"


def share(edit: Any) -> str | None:
    """A check: the amount is a share."""
    return None if 0 <= edit.amount <= 1 else f"expected an amount from 0 to 1, came {edit.amount:g}"


def kinds_text(width: int = 118) -> str:
    """Every kind with what it does and takes, for `--help`."""
    lines = []
    for name, kind in all_kinds().items():
        takes = ", ".join(_option(one, default) for one, default in kind.takes.items())
        said = f"  {name:<13}{kind.summary}{f' [{takes}]' if takes else ''}"
        lines.append(textwrap.fill(said, width, subsequent_indent=" " * 15))
    return "\n".join(lines)


def _option(name: str, default: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if default is REQUIRED or default is None else f"{flag} {default:g}"
