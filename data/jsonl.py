"""Examples as JSON, one object a line: what their fields say, a file of them, and a digest that any change moves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .errors import DataError, near_miss
from .examples import Example


def to_record(example: Example) -> dict[str, Any]:
    """The example as JSON values, without the fields that say nothing."""
    record = {item.name: getattr(example, item.name) for item in fields(example)}
    if record["cluster"] == example.id:
        del record["cluster"]
    return {name: value for name, value in record.items() if value not in (None, (), {})}


def from_record(record: Mapping[str, Any]) -> Example:
    """The example of a JSON object; a key that is not a field is refused with the closest one."""
    known = [item.name for item in fields(Example)]
    if not isinstance(record, Mapping):
        raise DataError(f"expected an object with an id and a prompt; came {type(record).__name__}")
    for key in record:
        if key not in known:
            raise DataError(f"unknown field {key!r}.{near_miss(key, known)} Expected fields: {', '.join(known)}")
    if "id" not in record:
        raise DataError("the field 'id' is missing; give every example an id of its own")
    try:
        return Example(**record)
    except DataError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"example {record['id']!r}: a field has a form it must not have; {error}") from error


def read_examples(path: str | Path) -> list[Example]:
    """The examples of a .jsonl file, one object a line; every error names the file and the line."""
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: expected a .jsonl file in UTF-8; {error}") from error
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            example = _read_line(f"{file}, line {number}", line)
            if example.id in seen:
                raise DataError(
                    f"{file}, line {number}: the id {example.id!r} is already that of line {seen[example.id]}"
                )
            seen[example.id] = number
            examples.append(example)
    if not examples:
        raise DataError(f"{file} holds no examples: expected one JSON object a line")
    return examples


def write_examples(path: str | Path, examples: Sequence[Example]) -> None:
    """One JSON object a line, in UTF-8."""
    lines = [json.dumps(to_record(example), ensure_ascii=False, allow_nan=False) for example in examples]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def digest_of(examples: Sequence[Example]) -> str:
    """16 hex digits that change with any field of any example."""
    text = "\n".join(json.dumps(to_record(example), sort_keys=True, ensure_ascii=False) for example in examples)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_line(place: str, line: str) -> Example:
    try:
        return from_record(json.loads(line))
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: expected one JSON object; {error.msg} at column {error.colno}") from error
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
