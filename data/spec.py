"""The spelling of a data set on the command line: `NAME`, or `NAME:key=value,key=a+b+c` where `+` makes a grid.

The canonical spelling names every parameter in alphabetical order, so equal data have equal spellings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import DataError, near_miss

Params = dict[str, Any]


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The name and the raw parameters of `NAME:key=value,...`."""
    name, _, rest = spec.partition(":")
    raw: dict[str, str] = {}
    for pair in rest.split(",") if rest else []:
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not (equals and key and value):
            raise DataError(
                f"data {spec!r}: expected key=value after the colon; came {pair!r}. Example: repeats:length=64+128"
            )
        if key in raw:
            raise DataError(f"data {spec!r}: {key!r} is given twice; write a grid as {key}=a+b")
        raw[key] = value
    return name.strip(), raw


def typed_params(name: str, raw: Mapping[str, str], defaults: Mapping[str, Any]) -> Params:
    """The raw parameters as the types of their defaults; `length` and `lengths` are the same to us."""
    params: Params = {}
    for key, value in raw.items():
        known = next((same for same in (key, f"{key}s", key.removesuffix("s")) if same in defaults), None)
        if known is None:
            raise DataError(
                f"data set {name!r} has no parameter {key!r}.{near_miss(key, defaults)} "
                f"It takes {', '.join(defaults) or 'none'}"
            )
        params[known] = _typed(f"{name}:{key}", value, defaults[known])
    return params


def spell(name: str, params: Mapping[str, Any]) -> str:
    """The canonical spelling; parameters that are None are left out."""
    pairs = [f"{key}={_text(value)}" for key, value in sorted(params.items()) if value is not None]
    return f"{name}:{','.join(pairs)}" if pairs else name


def _typed(place: str, text: str, default: Any) -> Any:
    """One value of the type of its default; a list is allowed where the default is one."""
    if isinstance(default, tuple):
        values = tuple(_scalar(place, piece, default[0]) for piece in text.split("+"))
        if len(set(values)) < len(values):
            raise DataError(f"{place}={text}: expected different values; one comes twice")
        return values
    return _scalar(place, text, default)


def _scalar(place: str, text: str, default: Any) -> Any:
    kind = str if default is None else type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        hint = " One value alone: this parameter takes no list" if "+" in text else ""
        raise DataError(f"{place}: expected {words.get(kind, 'text')}; came {text!r}.{hint}") from None


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(_text(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
