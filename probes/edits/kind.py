"""The kinds of edits there are, and how one is added: a decorated function in a file of this folder.

Declarations are read from the files' text, so that to name a kind, or to refuse one, takes no torch: a file is imported
when one of its kinds is first applied.
"""

from __future__ import annotations

import ast
import importlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
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
    file: str
    """Name of the file of this folder that declares it."""
    function: str
    check: Callable[[Any], str | None] | None = None
    needs: str = ""
    """What beside the prompt it needs: `means`, `partner` or `rotary` (positions that a query can be turned by)."""
    prompt_only: str = ""
    """Why it can't hold in a decode step; empty where it can."""
    keeping: str = ""
    """The function that says which rows stay as they are; empty where there are none."""

    @cached_property
    def apply(self) -> Callable[..., Any]:
        """What it does."""
        return self._named(self.function)

    @cached_property
    def keeps(self) -> Callable[..., Any] | None:
        """keeps(inputs, edit, place) -> bool [batch, query], rows that stay as they are; None where there are none."""
        return self._named(self.keeping) if self.keeping else None

    def _named(self, name: str) -> Callable[..., Any]:
        return getattr(importlib.import_module(f".{self.file}", __package__), name)


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind by name: the decorated functions of this folder's files, as they are declared there."""
    found: dict[str, Kind] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == edits.__name__:
                        kind = _declared(path.stem, node, call)
                        found[kind.name] = kind
    return found


def _declared(file: str, function: ast.FunctionDef, call: ast.Call) -> Kind:
    """The kind that `@edits(...)` over a function declares."""
    given = {str(one.arg): one.value for one in call.keywords}
    check, keeps = given.pop("check", None), given.pop("keeps", None)
    texts = {name: ast.literal_eval(given.pop(name)) for name in ("needs", "prompt_only") if name in given}
    takes = {
        name: REQUIRED if ast.unparse(value) == "REQUIRED" else ast.literal_eval(value) for name, value in given.items()
    }
    summary = (ast.get_docstring(function) or "").split("\n\n")[0].replace("\n", " ")
    return Kind(
        function.name.rstrip("_"), ast.literal_eval(call.args[0]), takes, summary, file, function.name,
        globals()[ast.unparse(check)] if check else None, keeping=ast.unparse(keeps) if keeps else "", **texts,
    )  # fmt: skip


def edits(
    level: Literal["weights", "output"],
    *,
    needs: str = "",
    check: Any = None,
    prompt_only: str = "",
    keeps: Any = None,
    **takes: Any,
) -> Any:
    """Declare a function as a kind: its name and summary are the function's; `check` is a function of this file."""
    return lambda function: function


def positive(edit: Any) -> str | None:
    """A check: the amount must be above 0."""
    return None if edit.amount > 0 else f"expected an amount above 0, came {edit.amount:g}"


def share(edit: Any) -> str | None:
    """A check: the amount is a share."""
    return None if 0 <= edit.amount <= 1 else f"expected an amount from 0 to 1, came {edit.amount:g}"


def cache_sizes(edit: Any) -> str | None:
    """A check: a query always sees itself."""
    fits = edit.sinks is not None and edit.recent is not None and edit.sinks >= 0 and edit.recent >= 1
    return None if fits else f"expected sinks of 0 or more and recent of 1 or more, came {edit.sinks} and {edit.recent}"


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
