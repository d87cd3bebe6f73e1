"""All measurements: the files of `library/`, installed entry points, and a user's own file."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ..data.errors import UserError, failure_of, near_miss
from .early import ENTRY_POINTS
from .experiment import Experiment
from .measurement import Measurement
from .probe import Probe
from .reading import WeightReading


def all_probes() -> dict[str, Probe]:
    """Every probe by name, sorted by family and then as they stand in their files."""
    return {name: item for name, item in everything().items() if isinstance(item, Probe)}


def all_readings() -> dict[str, WeightReading]:
    """Every reading of weights by name, in the same order."""
    return {name: item for name, item in everything().items() if isinstance(item, WeightReading)}


def all_experiments() -> dict[str, Experiment]:
    """Every experiment by name, in the same order; `all` does not name them, for they cost forwards of their own."""
    return {name: item for name, item in everything().items() if isinstance(item, Experiment)}


@cache
def everything() -> dict[str, Measurement]:
    """Every measurement by name."""
    found: dict[str, Measurement] = {}
    for path in sorted((Path(__file__).parent / "library").glob("*.py")):
        module = importlib.import_module(f".library.{path.stem}", __package__)
        found |= {item.name: item for item in vars(module).values() if isinstance(item, Measurement)}
    for point in entry_points(group=ENTRY_POINTS):
        item = point.load()
        found[item.name] = item
    return found


def select(patterns: str | Iterable[str]) -> list[Measurement]:
    """Measurements by name, family, glob, `all`, or `./file.py:name`; comma-separated or a list."""
    chosen: dict[str, Measurement] = {}
    for word in _words(patterns):
        chosen |= {item.name: item for item in _matching(word)}
    if not chosen:
        raise UserError("no probe was named; expected names such as sink_rate,entropy or `all`")
    return list(chosen.values())


def spelled_out(patterns: str | Iterable[str]) -> frozenset[str]:
    """The probes asked for by their own name, in the library or in a file; families, globs and `all` name none."""
    return frozenset(word.rpartition(":")[2] for word in _words(patterns) if ".py:" in word or word in everything())


def _words(patterns: str | Iterable[str]) -> list[str]:
    return [word.strip() for word in (patterns.split(",") if isinstance(patterns, str) else patterns)]


def _matching(word: str) -> Sequence[Measurement]:
    known = everything()
    if ".py:" in word:
        return [_from_file(word)]
    if word == "all":
        return [item for item in known.values() if not isinstance(item, Experiment)]
    if word in known:
        return [known[word]]
    found = [item for item in known.values() if word == item.family or fnmatch.fnmatch(item.name, word)]
    if not found:
        names = [*known, *{item.family for item in known.values()}]
        raise UserError(f"unknown probe {word!r}.{near_miss(word, names)} `headatlas probes` lists them")
    return found


def _from_file(word: str) -> Measurement:
    path, _, name = word.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise UserError(f"probe {word!r}: expected a Python file, {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"headatlas_user_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"probe {word!r}: {failure_of(error, file)}") from error
    item = getattr(module, name, None)
    if not isinstance(item, Measurement):
        probes = [key for key, value in vars(module).items() if isinstance(value, Measurement)]
        raise UserError(f"probe {word!r}: {file.name} has no probe called {name}; it has {', '.join(probes) or 'none'}")
    if name in everything():
        raise UserError(f"probe {word!r}: headatlas has a probe called {name}; give yours another name")
    return replace(item, file=file, code=hashlib.sha256(file.read_bytes()).hexdigest()[:16])
