"""The special tokens a tokenizer puts around a prompt: its frame, under a BOS policy.

`default` is what the tokenizer does by itself; `force` makes sure that the first token is its BOS (or CLS) token;
`none` leaves that token away and keeps the rest. The frame is found by encoding a letter with and without special
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import DataError

POLICIES = ("default", "force", "none")
"""What `--bos` may say."""


@dataclass(frozen=True)
class Frame:
    """Token ids before and after the body of a prompt; `first` is the BOS or CLS id, or None where there is none."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    first: int | None

    @property
    def length(self) -> int:
        """Special tokens added to a prompt."""
        return len(self.prefix) + len(self.suffix)

    def around(self, body: Sequence[int]) -> list[int]:
        """The whole sequence; a body that brings its own BOS gets no second one."""
        return [*self.prefix_for(body), *body, *self.suffix]

    def prefix_for(self, body: Sequence[int]) -> tuple[int, ...]:
        """The prefix, without its BOS where the body already begins with it."""
        doubled = bool(self.prefix) and bool(body) and self.prefix[-1] == self.first == body[0]
        return self.prefix[:-1] if doubled else self.prefix


def find_frame(tokenizer: Any, *, bos: str = "default") -> Frame:
    """The frame of a tokenizer (None: no frame) under a BOS policy."""
    if bos not in POLICIES:
        raise DataError(f"unknown BOS policy {bos!r}; expected one of {', '.join(POLICIES)}")
    if tokenizer is None:
        if bos == "force":
            raise DataError("BOS policy 'force' needs a tokenizer with a BOS token; there is no tokenizer")
        return Frame((), (), None)
    first = first_token(tokenizer)
    prefix, suffix = _own_frame(tokenizer)
    if bos == "force":
        if first is None:
            raise DataError(
                "BOS policy 'force' needs a BOS or CLS token, and this tokenizer has neither. Use 'default'"
            )
        prefix = prefix if prefix[:1] == (first,) else (first, *prefix)
    if bos == "none" and prefix[:1] == (first,):
        prefix = prefix[1:]
    return Frame(prefix, suffix, first)


def first_token(tokenizer: Any) -> int | None:
    """The id that may stand first and be called bos: the tokenizer's BOS token, else its CLS token."""
    for name in ("bos_token_id", "cls_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    return None


def _own_frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    framed = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return tuple(framed[:start]), tuple(framed[start + len(plain) :])
    raise DataError(
        "the tokenizer's special tokens cannot be told from its text: "
        f"'a' is {plain} without them and {framed} with them"
    )
