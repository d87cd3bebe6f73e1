"""What every measurement says of itself: of attention (probe.py), weights (reading.py), by experiment (experiment.py).

A decorated function becomes one: its name, family, summary and explanation come from where it stands and from its
docstring; the decorator's arguments say the rest. All of it goes into the run's header as the card.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..data.errors import ProbeError, failure_of
from ..data.groups import ALWAYS

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A head reading with everything a reader must know to trust it."""

    name: str
    function: Function = field(repr=False)
    title: str
    summary: str
    formula: str
    unit: str
    bounds: tuple[float | None, float | None]
    """The least and the largest value; None where there is no limit."""
    higher: str
    """What a high value means."""
    caveat: str
    """What it does not show."""
    source: str
    family: str = ""
    version: int = 1
    needs: frozenset[str] = frozenset()
    """What the function reads, by name: statistics of attention or of the residual stream, or weights."""
    parts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """Token groups the prompts must have; without them it is skipped."""
    default_data: str = "text"
    binary: bool = False
    """One 0 or 1 per example: its interval is Wilson's."""
    per: str = "example"
    """What a value is of, before it is one of the example: `query`, `key`, `example`, or `weights` of the model."""
    causal_only: bool = False
    not_shuffled: str = ""
    """Why it means nothing on shuffled tokens, where it is then not measured; empty: it is."""
    shortest: int = 1
    """A prompt of fewer tokens is undefined; data without a longer one are refused."""
    explanation: str = field(default="", repr=False)
    file: Path | None = field(default=None, repr=False)
    """The user's own file it stands in; None for one that is installed."""
    code: str = field(default="", repr=False)
    """Digest of that file: with other code it is another measurement, and another run."""

    @property
    def spelled(self) -> str:
        """Name with version, `entropy@1`."""
        return f"{self.name}@{self.version}"

    def lack(self, data: str, groups: Collection[str]) -> str:
        """Why it can't be measured on the data set `data` with these labels; empty where it can."""
        absent = [group for group in self.groups if group not in ALWAYS and group not in groups]
        said = f"has {', '.join(groups) or 'no labels'} (its own data set is {self.default_data!r})"
        return f"needs tokens labelled {', '.join(absent)}; data set {data!r} {said}" if absent else ""

    def card(self) -> dict[str, Any]:
        """The measurement as plain data, for a run's header, tables and pages."""
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "file"}
        plain = {frozenset: sorted, tuple: list}
        return {name: plain.get(type(one), lambda same: same)(one) for name, one in data.items() if not callable(one)}

    def said(self, place: str, *read: Any) -> Any:
        """What the function says of `read`; an error in a user's own file names the file, the line and the place."""
        if self.file is None:
            return self.function(*read)
        try:
            found = self.function(*read)
            return list(found) if isinstance(found, Iterator) else found
        except Exception as error:
            where = f"{self.name!r}, {place}" if place else repr(self.name)
            raise ProbeError(f"probe {where}: {failure_of(error, self.file)}", exit_code=1) from error


M = TypeVar("M", bound=Measurement)


def deciding(kind: type[M]) -> Callable[..., Callable[[Function], M]]:
    """The decorator that makes a measurement of that kind of a function; it takes the kind's fields by name."""

    def decorator(*, needs: set[str] | frozenset[str] = frozenset(), **said: Any) -> Callable[[Function], M]:
        def make(function: Function) -> M:
            return kind(function=function, needs=frozenset(needs), **(told_by(function) | said))

        return make

    return decorator


def told_by(function: Function) -> dict[str, Any]:
    """What a decorated function says of itself: name, docstring, its first paragraph, and the file it stands in."""
    explanation = inspect.getdoc(function) or ""
    return {
        "name": function.__name__,
        "summary": explanation.split("\n\n")[0].replace("\n", " "),
        "explanation": explanation,
        "family": function.__module__.rpartition(".")[2],
    }
