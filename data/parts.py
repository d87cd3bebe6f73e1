"""The immutable part files of a run: which chunk and which probes each one covers, and reading them as one table.

A part's parquet metadata holds its chunk and its keys (probe names; kinds for maps). When two parts hold the same
(chunk, key), the first by name is read and the other is not, so no row is ever counted twice. A part that cannot be
read is an error that names the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import StoreError, first_line

READ_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What pyarrow and json raise on a file that is not what it should be."""


@dataclass(frozen=True)
class Part:
    """One part file: its chunk number and the keys it covers (a key may have no rows)."""

    path: Path
    chunk: int
    keys: tuple[str, ...]


def part_name(kind: str, chunk: int, keys: Iterable[str]) -> str:
    """`rows-00003-1f2e3d4c.parquet`: the kind, the chunk and a short hash of the keys."""
    digest = hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:8]
    return f"{kind}-{chunk:05d}-{digest}.parquet"


def list_parts(folder: Path, kind: str) -> list[Part]:
    """The parts of one kind by name; reads footers alone."""
    return [_footer(path, path.stat().st_mtime_ns) for path in sorted(folder.glob(f"{kind}-*.parquet"))]


def first_claims(parts: Sequence[Part]) -> Iterator[tuple[Part, tuple[str, ...]]]:
    """Each part with the keys that no part before it holds for the same chunk."""
    taken: set[tuple[int, str]] = set()
    for part in parts:
        fresh = tuple(key for key in part.keys if (part.chunk, key) not in taken)
        taken.update((part.chunk, key) for key in fresh)
        if fresh:
            yield part, fresh


def read_parts(
    folder: Path, kind: str, schema: pa.Schema, *, key: str, where: pc.Expression | None = None, only: str | None = None
) -> pa.Table:
    """All rows of one kind as one table, without the rows of keys claimed by an earlier part.

    `where` is pushed down to parquet; `only` skips the parts that do not cover this key.
    """
    tables = []
    for part, fresh in first_claims(list_parts(folder, kind)):
        if only is not None and only not in fresh:
            continue
        condition = where
        if len(fresh) < len(part.keys):
            claimed = pc.field(key).cast(pa.string()).isin(list(fresh))
            condition = claimed if where is None else where & claimed
        tables.append(read_table(part.path, schema, where=condition))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_table(path: Path, schema: pa.Schema | None = None, *, where: pc.Expression | None = None) -> pa.Table:
    """One parquet file, its page checksums verified; a damaged file is an error that names it."""
    try:
        columns = None if schema is None else schema.names
        table = pq.read_table(
            path, columns=columns, filters=where, page_checksum_verification=True
        ).replace_schema_metadata(None)
        return table if schema is None else table.cast(schema)
    except READ_ERRORS as error:
        raise damaged(path, error) from error


def metadata(path: Path) -> dict[str, Any]:
    """The JSON values in a parquet file's metadata; reads the footer alone."""
    try:
        raw = pq.read_schema(path).metadata or {}
        return {name.decode(): json.loads(value) for name, value in raw.items() if not name.startswith(b"ARROW")}
    except READ_ERRORS as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> StoreError:
    """The error for a file that is not a whole table of ours."""
    return StoreError(
        f"{path.parent.name}/{path.name} cannot be read: expected a whole parquet file written by headatlas; "
        f"{first_line(error)}. Remove that file and give the same measure command again: it writes only what is "
        "missing",
        exit_code=1,
    )


@lru_cache(maxsize=65536)
def _footer(path: Path, modified: int) -> Part:
    known = metadata(path)
    try:
        return Part(path, int(known["chunk"]), tuple(known["keys"]))
    except READ_ERRORS as error:
        raise damaged(path, ValueError(f"its metadata has no {error}")) from error
