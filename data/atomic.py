"""Files that appear whole or not at all.

Written under a temporary name in the same folder, fsynced, renamed, and the folder fsynced: a reader, and a machine
that loses power, sees the old file or the new one. A full disk is one clear line, and the temporary file goes away.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import StoreError

SUFFIX = ".tmp"
"""How an unfinished file's name ends; readers never look at one."""


def write_file(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Make `path` hold what `fill` writes, in one step; any OSError becomes a StoreError that names the file."""
    temporary = path.with_name(f"{path.name}.{uuid4().hex[:8]}{SUFFIX}")
    try:
        with temporary.open("wb") as handle:
            fill(handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(_explain(path, error), exit_code=1) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A readable UTF-8 JSON file; NaN is refused, since other readers of JSON do not know it."""
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path.name}: expected values that JSON can hold; {error}") from error
    write_file(path, lambda handle: handle.write(text.encode()))


def write_table(path: Path, table: pa.Table, *, metadata: Mapping[str, Any]) -> None:
    """A parquet file with page checksums and `metadata` as JSON; one row group per probe, so that readers can skip."""
    known = {key: json.dumps(value) for key, value in metadata.items()}
    table = table.replace_schema_metadata(known)

    def fill(handle: BinaryIO) -> None:
        with pq.ParquetWriter(handle, table.schema, compression="zstd", write_page_checksum=True) as writer:
            for group in _groups(table):
                writer.write_table(group)

    write_file(path, fill)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of a writer that died; only the folder's owner may call this."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def _groups(table: pa.Table) -> list[pa.Table]:
    if "probe" not in table.column_names or not len(table):
        return [table]
    names = table["probe"].cast(pa.string())
    return [table.filter(pc.field("probe") == name) for name in sorted(names.unique().to_pylist())]


def _plain(value: Any) -> Any:
    """Numpy scalars, tuples of unknown kinds and paths as JSON knows them."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full: could not write {path}. Everything written before is kept; "
            "free some space and give the same command again"
        )
    return f"could not write {path}: {error.strerror or error}. Everything written before is kept"
