"""The columns of every table in a run, and the one way values become a table.

NaN in `value` means measured and undefined here; it is kept as NaN. Null in `layer` or `head` means the row speaks of
the whole layer or the whole model. Neither is ever 0 or -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .errors import StoreError

NAME = pa.dictionary(pa.int32(), pa.string())
"""Arrow type of a column with few different names."""

_EXAMPLE = ("example", pa.int32())
_PROBE = [("probe", NAME), ("part", NAME)]
_PLACE = [("tower", NAME), ("layer", pa.int16()), ("head", pa.int16())]
_LIST = ("values", pa.list_(pa.float32()))

ROWS = pa.schema([_EXAMPLE, *_PROBE, *_PLACE, ("value", pa.float32()), ("n_queries", pa.int32())])
"""One row per example, probe, part and head."""

POSITIONS = pa.schema([_EXAMPLE, *_PROBE, *_PLACE, ("axis", NAME), _LIST])
"""One list per example, probe, part and head; `axis` says whether it runs over queries or keys."""

_GRID = [("kind", NAME), ("block", pa.int16()), ("rows", pa.int32()), ("cols", pa.int32())]
MAPS = pa.schema([_EXAMPLE, *_PLACE, *_GRID, _LIST])
"""One block-pooled attention map [rows, cols], row-major, per example and head."""

_EDGE = [("source", pa.string()), ("target", pa.string()), ("score", pa.float32()), ("kept", pa.bool_())]
EDGES = pa.schema([*_EDGE, ("task", pa.string()), ("method", pa.string())])
"""One row per edge of a circuit."""

HEADS = pa.schema(
    [(name, pa.string()) for name in ("probe", "part", "tower")]
    + [("layer", pa.int16()), ("head", pa.int16()), ("stratum", pa.string())]
    + [(name, pa.float64()) for name in ("mean", "ci_low", "ci_high")]
    + [("n", pa.int32()), ("n_examples", pa.int32()), ("reliability", pa.float64())]
)
"""One row per probe, part, head and stratum: mean, 95 % interval, clusters, examples, rank reliability."""

EXAMPLES = pa.schema(
    [_EXAMPLE]
    + [(name, pa.string()) for name in ("id", "dataset", "cluster")]
    + [("tokens", pa.int32()), ("text", pa.string()), ("token_ids", pa.list_(pa.int32()))]
)
"""One row per example; one typed column `c_<name>` per condition follows."""

FILL = {"part": "", "tower": "text", "layer": None, "head": None}
"""Columns that may be left out, with the value they then have in every row."""

NULLABLE = ("layer", "head", "token_ids")
"""Columns in which null has a meaning."""


def table_of(columns: Mapping[str, Any] | pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A table of exactly the schema's columns; a scalar is repeated in every row. Errors name the column."""
    extra = sorted(set(columns) - set(schema.names))
    missing = [name for name in schema.names if name not in columns and name not in FILL]
    if extra or missing:
        raise StoreError(f"expected the columns {', '.join(schema.names)}; missing {missing}, not known {extra}")
    given = {name: columns[name] if name in columns else FILL[name] for name in schema.names}
    length = _length(given)
    arrays = [_array(field.name, given[field.name], field.type, length) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def frame_of(table: pa.Table) -> pd.DataFrame:
    """pandas view of a table: names as categories, `layer` and `head` as nullable Int16, NaN kept."""
    return table.unify_dictionaries().to_pandas(types_mapper={pa.int16(): pd.Int16Dtype()}.get)


def conditions_table(frame: pd.DataFrame) -> pa.Table:
    """The examples table: the fixed columns, then each condition column `c_<name>` with one type of its own."""
    conditions = [name for name in frame.columns if name.startswith("c_")]
    fixed = frame.drop(columns=conditions)
    if "token_ids" not in fixed:
        fixed = fixed.assign(token_ids=None)
    table = table_of({name: list(fixed[name]) for name in fixed}, EXAMPLES)
    for name in conditions:
        table = table.append_column(name, _condition(name, list(frame[name])))
    return table


def _length(given: Mapping[str, Any]) -> int:
    """The common number of rows; columns of different lengths are refused by name."""
    lengths = {name: len(value) for name, value in given.items() if not _is_scalar(value)}
    if len(set(lengths.values())) != 1:
        raise StoreError(f"expected columns of one length, at least one of them a list or array; came {lengths}")
    return next(iter(lengths.values()))


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, np.generic))


def _array(name: str, value: Any, kind: pa.DataType, length: int) -> pa.Array:
    """One column as Arrow; NaN stays NaN in floats and means null in layer and head alone."""
    try:
        array = _convert(name, [value] * length if _is_scalar(value) else value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"column {name!r}: expected {kind}; {error}") from error
    if array.null_count and name not in NULLABLE:
        raise StoreError(f"column {name!r}: expected a value in every row; {array.null_count} are null")
    return array


def _convert(name: str, value: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        return pa.array(np.asarray(value, dtype=kind.to_pandas_dtype()), from_pandas=False)
    if name in ("layer", "head"):
        return _place(value)
    if pa.types.is_dictionary(kind):
        plain = value if isinstance(value, (pd.Series, pd.Categorical)) else list(value)
        array = pa.array(plain)
        array = array if pa.types.is_dictionary(array.type) else array.cast(pa.string()).dictionary_encode()
        return array.cast(kind)
    if pa.types.is_list(kind):
        return pa.array([None if item is None else np.asarray(item) for item in value], type=kind, from_pandas=False)
    return pa.array(value, type=kind) if isinstance(value, np.ndarray) else pa.array(list(value), type=kind)


def _place(value: Any) -> pa.Array:
    """Zero-based layer or head numbers as int16, with None, NA and NaN as null."""
    numbers = pd.array(value, dtype="Int64")
    known = np.asarray(numbers.dropna(), dtype=np.int64)
    if len(known) and (known.min() < 0 or known.max() > np.iinfo(np.int16).max):
        raise ValueError(f"came {known.min()}..{known.max()}; write None where there is no layer or head")
    return pa.array(numbers, type=pa.int16())


def _condition(name: str, values: Sequence[Any]) -> pa.Array:
    """One condition as bool, int64, float64 or string, with null where an example lacks it."""
    plain = [None if value is None or (isinstance(value, float) and value != value) else value for value in values]
    plain = [value.item() if isinstance(value, np.generic) else value for value in plain]
    kinds = {type(value) for value in plain if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in plain], type=pa.float64())
    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    if len(kinds) > 1 or not kinds <= set(types):
        names = sorted(kind.__name__ for kind in kinds)
        raise StoreError(f"condition {name[2:]!r}: expected one type of text, number or truth; came {names}")
    return pa.array(plain, type=types[kinds.pop()] if kinds else pa.string())
