"""Chat messages through a tokenizer's template, with the place of every message in the rendered text.

The places are found by rendering the same conversation with marks in place of the contents. Where a template treats
contents in a way that the marks do not show, a content must occur exactly once in what follows, or it is an error: a
guess would label the wrong tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import DataError
from .examples import Example

_MARK = "\ue000{}\ue001"


def render(example: Example, tokenizer: Any) -> tuple[str, list[tuple[str, int, int]]]:
    """The rendered text, and (label, start, end) of each role's content and of each span of the example."""
    messages = [dict(message) for message in example.messages or ()]
    text = _apply(example, tokenizer, messages)
    places = _marked_places(example, tokenizer, messages, text) or _found_places(example, messages, text)
    filled = zip(messages, places, strict=True)
    roles = [(message["role"], start, start + size) for message, (start, size, _) in filled if size]
    return text, roles + _moved_spans(example, messages, places)


def _apply(example: Example, tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"example {example.id!r} is a chat and the tokenizer has no chat template; use a chat model, or give text"
        )
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=messages[-1]["role"] != "assistant"
        )
    except Exception as error:
        raise DataError(f"example {example.id!r}: the chat template refuses these messages: {error}") from error


def _marked_places(
    example: Example, tokenizer: Any, messages: list[dict[str, str]], text: str
) -> list[tuple[int, int, int]] | None:
    """(start in the text, characters, blanks cut from the left) per message, or None where the marks do not fit."""
    marked = [{**message, "content": _MARK.format(index)} for index, message in enumerate(messages)]
    try:
        pieces = re.split("\ue000(\\d+)\ue001", _apply(example, tokenizer, marked))
    except DataError:
        return None
    if pieces[1::2] != [str(index) for index in range(len(messages))]:
        return None
    for strip in (False, True):
        contents = [message["content"].strip() if strip else message["content"] for message in messages]
        whole = "".join(a + b for a, b in zip(pieces[0::2], [*contents, ""], strict=True))
        if whole == text:
            return _laid_out(messages, contents, pieces[0::2])
    return None


def _laid_out(messages: list[dict[str, str]], contents: list[str], between: list[str]) -> list[tuple[int, int, int]]:
    places, cursor = [], 0
    for message, content, before in zip(messages, contents, between, strict=False):
        cursor += len(before)
        places.append((cursor, len(content), max(message["content"].find(content), 0)))
        cursor += len(content)
    return places


def _found_places(example: Example, messages: list[dict[str, str]], text: str) -> list[tuple[int, int, int]]:
    """The same by search; only where nothing is left to guess."""
    places, cursor = [], 0
    for message in messages:
        content = message["content"].strip()
        if not content or text.count(content, cursor) != 1:
            raise DataError(
                f"example {example.id!r}: the {message['role']} message {content[:40]!r} occurs "
                f"{text.count(content, cursor) if content else 0} times in what the chat template makes of it; "
                "expected once. Reword it, or give token_ids"
            )
        start = text.index(content, cursor)
        places.append((start, len(content), message["content"].find(content)))
        cursor = start + len(content)
    return places


def _moved_spans(
    example: Example, messages: list[dict[str, str]], places: list[tuple[int, int, int]]
) -> list[tuple[str, int, int]]:
    """Spans over the contents one after the other, as spans of the rendered text; each must lie in one message."""
    moved = []
    for group, pairs in example.spans.items():
        for start, end in pairs:
            before = 0
            for message, (place, size, cut) in zip(messages, places, strict=True):
                after = before + len(message["content"])
                if before <= start < after:
                    if end > after:
                        raise DataError(
                            f"example {example.id!r}: the span {start}..{end} of {group!r} crosses two messages"
                        )
                    low, high = (min(max(one - before - cut, 0), size) for one in (start, end))
                    moved.append((group, place + low, place + high))
                before = after
    return moved
