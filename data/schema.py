"""What a run is: its header, its id and the names of its strata.

A run is one model, one data set and one set of edits. Its id is a readable name with a short hash of everything that
changes a number (weights, tokenizer, dtype, data, seed, BOS policy, edits, statistic versions), and not of the probes:
measuring more probes adds to the same run. The columns of the tables stand in `columns.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from numbers import Integral, Real
from typing import Any

from .baselines import kind_of
from .errors import StoreError

SCHEMA_VERSION = 1
"""Version of the layout of a run; a reader refuses versions it does not know."""

STATUSES = ("running", "done", "failed", "interrupted")
"""What a header may say about its run."""

REQUIRED = {
    "model": ("name", "digest"),
    "tokenizer": ("digest",),
    "data": ("name", "spec", "digest", "strata", "examples"),
    "dtype": (),
    "seed": (),
    "bos": (),
    "probes": (),
}
"""Header keys without which a run has no identity, with the keys inside them."""

DEFAULTS = {"kind": "measure", "edits": [], "parents": [], "series": None, "step": None, "chunk_size": 16}
"""Header keys filled in when the caller leaves them out."""


def now() -> str:
    """The time in UTC, ISO 8601 with microseconds, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def slug(name: str, *, empty: str) -> str:
    """The readable part of an id: the last step of a path or hub id, lower case, of `a-z 0-9 . -` alone."""
    last = name.rstrip("/\\").replace("\\", "/").split("/")[-1]
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")[:40] or empty


def check_header(header: Mapping[str, Any]) -> None:
    """Refuse a header without the keys that identify a run, naming every key that is missing."""
    missing = [key for key in REQUIRED if key not in header]
    for key, inner in REQUIRED.items():
        if inner and key in header:
            missing += [f"{key}.{name}" for name in inner if name not in (header[key] or {})]
    if missing:
        raise StoreError(f"a run header needs {', '.join(sorted(missing))}; came {', '.join(sorted(header))}")


def header_to_write(run: str, header: Mapping[str, Any], stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """A fresh header, or the stored one of the same run with the new probes added."""
    fresh = {**header, "schema_version": SCHEMA_VERSION, "run_id": run}
    if stored is None:
        return {**DEFAULTS, **fresh, "created": now()}
    _check_versions(run, stored["probes"], fresh["probes"])
    kept = ("created", "chunk_size", "keep_positions", "seconds")
    merged = {**stored, **fresh, **{key: stored[key] for key in kept if key in stored}}
    merged["probes"] = {**stored["probes"], **fresh["probes"]}
    before = stored.get("parents") or []
    merged["parents"] = [*before, *(one for one in fresh.get("parents") or [] if one not in before)]
    return merged


def _check_versions(run: str, stored: Mapping[str, Any], fresh: Mapping[str, Any]) -> None:
    """The same probe in another version is another measurement and may not be mixed in."""
    for probe in sorted(set(stored) & set(fresh)):
        old, new = (cards[probe].get("version") for cards in (stored, fresh))
        if old != new:
            raise StoreError(
                f"run {run} holds {probe}@{old}; this headatlas measures {probe}@{new}, which is not comparable. "
                "Measure into another store, or remove the run"
            )


def identity(header: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in a header that changes a number, and nothing else: what the hash in the id is taken of."""
    check_header(header)
    data = header["data"]
    own = {name: card["code"] for name, card in header["probes"].items() if card.get("code")}
    learned = {name: header[name] for name in ("learned", "means") if header.get(name)}
    return (
        ({"code": own} if own else {})
        | learned
        | {
            "schema_version": SCHEMA_VERSION,
            "kind": header.get("kind", "measure"),
            "weights": header["model"]["digest"],
            "tokenizer": header["tokenizer"]["digest"],
            "dtype": header["dtype"],
            "data": data["digest"],
            "seed": header["seed"],
            "bos": header["bos"],
            "edits": header.get("edits") or [],
            "statistics": (header.get("versions") or {}).get("statistics"),
        }
    )


def run_id(header: Mapping[str, Any]) -> str:
    """`<model>-<data>-<8 hex digits>`, the digits hash `identity(header)`; before them stands what kind of run it is,
    where it is no plain `measure`, and a baseline's kind.
    """
    digest = hashlib.sha256(canonical(identity(header)).encode()).hexdigest()[:8]
    names = [slug(header["model"]["name"], empty="model"), slug(header["data"]["name"], empty="data")]
    kind = header.get("kind", "measure")
    return "-".join([*names, *filter(None, [kind if kind != "measure" else None, kind_of(header)]), digest])


def chunk_count(header: Mapping[str, Any]) -> int:
    """How many chunks of `chunk_size` consecutive examples the run has."""
    return ceil(int(header["data"]["examples"]) / int(header["chunk_size"]))


def format_condition(value: Any) -> str:
    """One spelling per value: 512.0 is `512`, True is `true`; `;`, `=` and `%` in text are percent-encoded."""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "true" if value else "false"
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    return str(value).replace("%", "%25").replace(";", "%3B").replace("=", "%3D")


def stratum_name(names: Sequence[str], values: Sequence[Any]) -> str:
    """The canonical name of a cell, such as `length=512;depth=0.5`; `length` comes first, the rest as declared."""
    pairs = sorted(zip(names, values, strict=True), key=lambda pair: pair[0] != "length")
    return ";".join(f"{name}={format_condition(value)}" for name, value in pairs)
