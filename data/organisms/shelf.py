"""The organisms on the shelf: their names, folders and certificates. Reads files only; torch stays unloaded."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UserError, near_miss

SHELF = Path(__file__).parent
CERTIFICATE = "certificate.json"


def organisms() -> tuple[str, ...]:
    """Names of the models that ship with the package, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in SHELF.glob("*/config.json")))


def organism_path(name: str) -> Path:
    """The folder that `from_pretrained` loads; `name` may carry the prefix `organism:`."""
    bare = name.removeprefix("organism:")
    if bare in organisms():
        return SHELF / bare
    known = organisms()
    raise UserError(f"no organism is called {bare!r}.{near_miss(bare, known)} There are: {', '.join(known) or 'none'}")


def certificate(name: str) -> dict:
    """What was measured of the shipped weights, as `headatlas models --certify` wrote it."""
    path = organism_path(name) / CERTIFICATE
    if not path.exists():
        raise UserError(f"{path.parent.name} has no {CERTIFICATE}; write it with certify({path.parent.name!r})")
    return json.loads(path.read_text())
