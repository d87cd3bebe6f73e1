"""Errors a person can act on: what was expected, what came, what to do, in one line."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """A mistake in what was asked; the command line prints its one line and exits with `exit_code`.

    Exit code 2 means refused before anything ran, 1 means failed after starting.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoreError(UserError):
    """The store cannot be read or written as asked."""


class LockedError(StoreError):
    """Another process writes that run; `here` where it lives on this machine and is not this one."""

    def __init__(self, message: str, *, run: str, who: str, here: bool) -> None:
        super().__init__(message)
        self.run, self.who, self.here = run, who, here


class DataError(UserError, ValueError):
    """A data set, an example or its tokens are not what they must be."""


class NoTemplateError(DataError):
    """Conversations are asked for, and the model's tokenizer has no chat template."""


class ProbeError(UserError, ValueError):
    """A probe fails, or does not return what it must."""


def first_line(error: BaseException) -> str:
    """What an error of a library says first, cut to 200 characters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def failure_of(error: BaseException, file: Path) -> str:
    """What went wrong in a user's Python file: its name, its last line that was reached, the error."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    place = f"{file.name}, line {lines[-1]}," if lines else file.name
    return f"{place} fails: {type(error).__name__}: {first_line(error)}"


def near_miss(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' when a known name is close to `name`, else an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
