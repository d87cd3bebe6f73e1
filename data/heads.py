"""The name of a head, as people write it: L5H1 is layer 5, head 1, both from zero."""

from __future__ import annotations

import re

from .errors import UserError

HEAD_NAME = re.compile(r"L(\d{1,4})H(\d{1,4})", re.IGNORECASE)


def head_name(layer: int, head: int | None, *, kv: bool = False) -> str:
    """The display name of a head, zero-based: `L5H1`; of a whole layer: `L5`; of a KV head: `L5KV1`."""
    return f"L{layer}" if head is None else f"L{layer}{'KV' if kv else 'H'}{head}"


def parse_head(name: str) -> tuple[int, int]:
    """The (layer, head) of a display name."""
    match = HEAD_NAME.fullmatch(str(name).strip())
    if match is None:
        raise UserError(f"expected a head like L5H1 (layer 5, head 1, both from zero), got {name!r}")
    return int(match[1]), int(match[2])
