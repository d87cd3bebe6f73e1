"""Examples to a `TokenBatch`: ids, and for each token the most specific label that holds.

Text and token ids are put into the tokenizer's frame of special tokens; the labels of text come from character offsets.
Messages go through the chat template, and what the template adds is `template`. An answer is appended (teacher forcing)
with label `answer`. Padding is on the right. Pictures are not encoded here: they need a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .chat import render
from .errors import DataError
from .examples import Example
from .frame import Frame, find_frame
from .groups import columns_for, depth
from .tokens import IGNORED, TokenBatch

Labelled = tuple[str, int, int]
"""A label with the start and end, in characters or tokens, of what it covers."""


@dataclass(frozen=True)
class Encoded:
    """One prompt: ids and labels of all its tokens, and where its answer starts and ends."""

    ids: list[int]
    labels: list[str]
    answer: tuple[int, int] | None


def encode(
    examples: Sequence[Example], tokenizer: Any, *, bos: str = "default", max_length: int | None = None
) -> TokenBatch:
    """The batch of these examples; `tokenizer` may be None where all of them are token ids.

    A prompt of more than `max_length` tokens, answer included, is an error: cutting it would change what is measured.
    """
    if not examples:
        raise DataError("expected at least one example to encode; came none")
    frame = find_frame(tokenizer, bos=bos)
    rows = [encode_one(example, tokenizer, frame=frame, bos=bos) for example in examples]
    for example, row in zip(examples, rows, strict=True):
        if max_length is not None and len(row.ids) > max_length:
            raise DataError(
                f"example {example.id!r} has {len(row.ids)} tokens; the limit is {max_length}. "
                "Shorten it, ask the data set for a smaller length, or use a model with a longer context"
            )
    return _padded([example.id for example in examples], rows, pad=_pad_id(tokenizer))


def encode_one(example: Example, tokenizer: Any, *, frame: Frame, bos: str) -> Encoded:
    """One example without padding."""
    if example.images:
        raise DataError(f"example {example.id!r} has pictures, which need a model's processor; encode takes text alone")
    if tokenizer is None and example.token_ids is None:
        raise DataError(f"example {example.id!r} is text, which needs a tokenizer; give token_ids, or a tokenizer")
    if example.token_ids is not None:
        body, labels = list(example.token_ids), ["rest"] * len(example.token_ids)
        _paint(labels, [(group, *pair) for group, pairs in example.spans.items() for pair in pairs])
    elif example.messages is not None:
        return _encode_messages(example, tokenizer, frame=frame, bos=bos)
    else:
        text = example.text or ""
        body, labels = _body(example, tokenizer, text, _text_spans(example))
    answer = _answer_ids(example, tokenizer, example.text, body)
    prefix = frame.prefix_for(body)
    ids = [*prefix, *body, *answer, *frame.suffix]
    labels = [*_frame_labels(prefix, frame), *labels, *["answer"] * len(answer), *_frame_labels(frame.suffix, frame)]
    if body[0] == frame.first and not prefix:
        labels[0] = "bos"
    return Encoded(ids, labels, _answer_place(len(prefix) + len(body), answer))


def _encode_messages(example: Example, tokenizer: Any, *, frame: Frame, bos: str) -> Encoded:
    """A chat: the template's own BOS counts, so none is added unless `force` finds it missing."""
    text, spans = render(example, tokenizer)
    body, labels = _body(example, tokenizer, text, spans, rest="template")
    answer = _answer_ids(example, tokenizer, text, body)
    if bos == "none" and body[0] == frame.first:
        body, labels = body[1:], labels[1:]
    if bos == "force" and body[0] != frame.first and frame.first is not None:
        body, labels = [frame.first, *body], ["bos", *labels]
    if body[0] == frame.first:
        labels[0] = "bos"
    return Encoded([*body, *answer], [*labels, *["answer"] * len(answer)], _answer_place(len(body), answer))


def _text_spans(example: Example) -> list[Labelled]:
    return [(group, start, end) for group, pairs in example.spans.items() for start, end in pairs]


def _body(
    example: Example, tokenizer: Any, text: str, spans: list[Labelled], *, rest: str = "rest"
) -> tuple[list[int], list[str]]:
    """Ids of a text without special tokens, and the label of each from the characters it covers."""
    if spans and not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"example {example.id!r} has spans of characters, which need a fast tokenizer (with offsets); "
            "this one is slow. Give token_ids with spans of tokens"
        )
    if not spans:
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return _some(example, ids), [rest] * len(ids)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    labels = [rest] * len(ids)
    _paint(labels, [(group, *_tokens_of(example, group, text, offsets, start, end)) for group, start, end in spans])
    return _some(example, ids), labels


def _tokens_of(
    example: Example, group: str, text: str, offsets: list[tuple[int, int]], start: int, end: int
) -> tuple[int, int]:
    """The tokens that hold a character of text[start:end]; blanks at its edges do not count, unless it is all blank."""
    inner = text[start:end]
    if inner.strip():
        start, end = start + len(inner) - len(inner.lstrip()), start + len(inner.rstrip())
    found = [index for index, (low, high) in enumerate(offsets) if low < end and high > start and high > low]
    if not found:
        raise DataError(
            f"example {example.id!r}: no token holds the characters {start}..{end} of {group!r} ({inner[:40]!r}); "
            "check the span: it counts characters, and its end is not in it"
        )
    return found[0], found[-1] + 1


def _paint(labels: list[str], spans: list[Labelled]) -> None:
    """Write the labels so that the most specific wins: the deeper label, then the narrower span."""
    for group, start, end in sorted(spans, key=lambda span: (depth(span[0]), span[1] - span[2])):
        labels[start:end] = [group] * (end - start)


def _answer_ids(example: Example, tokenizer: Any, text: str | None, body: list[int]) -> list[int]:
    """Ids of the answer as it reads right after the prompt; given ids are taken as they are.

    Where it would merge with the last token of the prompt it is encoded alone: the tokens of the prompt never change.
    """
    if example.answer_ids is not None:
        return list(example.answer_ids)
    if not example.answer:
        return []
    if tokenizer is None:
        raise DataError(f"example {example.id!r} has an answer in text and there is no tokenizer; give answer_ids")
    if text is not None:
        joined = list(tokenizer(text + example.answer, add_special_tokens=False)["input_ids"])
        if joined[: len(body)] == body and len(joined) > len(body):
            return joined[len(body) :]
    return _some(example, list(tokenizer(example.answer, add_special_tokens=False)["input_ids"]))


def _answer_place(start: int, answer: list[int]) -> tuple[int, int] | None:
    return (start, start + len(answer)) if answer else None


def _frame_labels(ids: Sequence[int], frame: Frame) -> list[str]:
    """A frame's BOS or CLS is bos; its other tokens separate."""
    return ["bos" if index == 0 and one == frame.first else "separator" for index, one in enumerate(ids)]


def _some(example: Example, ids: list[int]) -> list[int]:
    if not ids:
        raise DataError(f"example {example.id!r}: the tokenizer makes no token of its text; give it some text")
    return ids


def _pad_id(tokenizer: Any) -> int:
    for name in ("pad_token_id", "eos_token_id"):
        if isinstance(token := getattr(tokenizer, name, None), int):
            return token
    return 0


def _padded(example_ids: list[str], rows: list[Encoded], *, pad: int) -> TokenBatch:
    """Rows as tensors [batch, key]."""
    lengths = torch.tensor([len(row.ids) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    names = columns_for({label for row in rows for label in row.labels})
    groups = torch.full((len(rows), width), names.index("padding"), dtype=torch.int8)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        groups[index, : len(row.ids)] = torch.tensor([names.index(label) for label in row.labels], dtype=torch.int8)
        if row.answer is not None:
            start, end = row.answer
            targets[index, start - 1 : end - 1] = ids[index, start:end]
    return TokenBatch(
        example_ids=tuple(example_ids),
        input_ids=ids,
        lengths=lengths,
        groups=groups,
        group_names=names,
        query_mask=torch.arange(width)[None, :] < lengths[:, None],
        targets=targets if any(row.answer for row in rows) else None,
    )
