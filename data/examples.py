"""One prompt with what is known about it, and the table of prompts that a run stores.

A prompt is text, chat messages or token ids, exactly one of these. Spans say which part of it belongs to which token
group: characters of `text`; characters of the messages' contents written one after the other, with nothing between;
tokens of `token_ids`, the tokenizer's frame (BOS, ...) not counted. The end of a span is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import DataError
from .groups import check_group

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("system", "user", "assistant")
"""Roles a message may have."""

Spans = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Example:
    """One prompt; `cluster` names what must be resampled together and is the id where nothing is said.

    `answer` is exactly the characters that follow the prompt, with the leading space if there is one; `choices` are all
    answers there are to choose from (label words, options); `partner` is the id of the example it is paired with;
    `conditions` become columns and strata.
    """

    id: str
    text: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    token_ids: tuple[int, ...] | None = None
    images: tuple[str, ...] = ()
    spans: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    answer: str | None = None
    answer_ids: tuple[int, ...] | None = None
    wrong_answer: str | None = None
    choices: tuple[str, ...] = ()
    partner: str | None = None
    cluster: str | None = None
    conditions: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise DataError(f"an example needs an id: expected text that is not empty; came {self.id!r}")
        self._freeze()
        self._check_prompt()
        self._check_choices()
        self._check_spans()
        self._check_conditions()

    def _freeze(self) -> None:
        """Lists, as JSON gives them, become tuples of plain integers."""
        if isinstance(self.token_ids, str) or isinstance(self.messages, (str, Mapping)) or isinstance(self.images, str):
            raise DataError(f"example {self.id!r}: expected lists in token_ids, messages and images")
        for name in ("token_ids", "answer_ids"):
            if (ids := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(_integer(self.id, name, one) for one in ids))
        if isinstance(self.choices, str) or not all(isinstance(one, str) and one for one in self.choices):
            raise DataError(f"example {self.id!r}: expected a list of answers in choices; came {self.choices!r}")
        object.__setattr__(self, "choices", tuple(dict.fromkeys(self.choices)))
        object.__setattr__(self, "messages", None if self.messages is None else tuple(self.messages))
        object.__setattr__(self, "images", tuple(self.images))
        spans = {group: tuple(_pair(self.id, group, pair) for pair in pairs) for group, pairs in self.spans.items()}
        object.__setattr__(self, "spans", spans)
        object.__setattr__(self, "cluster", self.id if self.cluster is None else str(self.cluster))

    def _check_prompt(self) -> None:
        given = [name for name in ("text", "messages", "token_ids") if getattr(self, name) is not None]
        if len(given) != 1:
            came = " and ".join(given) or "none of them"
            raise DataError(f"example {self.id!r}: expected exactly one of text, messages and token_ids; came {came}")
        if not getattr(self, given[0]):
            raise DataError(f"example {self.id!r}: its {given[0]} is empty; give at least one token")
        if self.text is not None and not isinstance(self.text, str):
            raise DataError(f"example {self.id!r}: expected text; came {type(self.text).__name__}")
        for message in self.messages or ():
            if set(message) != {"role", "content"} or message["role"] not in ROLES:
                raise DataError(
                    f"example {self.id!r}: expected messages of a role ({', '.join(ROLES)}) and a content; "
                    f"came {message}"
                )

    def _check_choices(self) -> None:
        if self.choices and self.answer is not None and (self.answer not in self.choices or len(self.choices) < 2):
            raise DataError(
                f"example {self.id!r}: expected its answer {self.answer!r} and another one among its choices; "
                f"came {list(self.choices)}"
            )

    @property
    def others(self) -> tuple[str, ...]:
        """The answers that would be wrong: of its choices, or its one wrong answer."""
        wrong = () if self.wrong_answer is None else (self.wrong_answer,)
        return tuple(one for one in self.choices if one != self.answer) or wrong

    def _check_spans(self) -> None:
        length, unit = self.extent
        for group, pairs in self.spans.items():
            check_group(group)
            for start, end in pairs:
                if not 0 <= start < end <= length:
                    raise DataError(
                        f"example {self.id!r}: the span {start}..{end} of {group!r} is outside its prompt; "
                        f"expected 0 <= start < end <= {length} {unit}"
                    )

    def _check_conditions(self) -> None:
        for name, value in self.conditions.items():
            if not isinstance(value, (str, int, float)) or value != value:
                raise DataError(
                    f"example {self.id!r}: condition {name!r}: expected text, a number or truth; came {value!r}. "
                    "Leave the condition out where it does not apply"
                )

    @property
    def extent(self) -> tuple[int, str]:
        """How long the prompt is in the unit of its spans, and that unit."""
        if self.token_ids is not None:
            return len(self.token_ids), "tokens"
        if self.messages is not None:
            return sum(len(message["content"]) for message in self.messages), "characters of all contents"
        return len(self.text or ""), "characters"


def examples_frame(
    examples: Sequence[Example],
    *,
    dataset: str,
    tokens: Sequence[int],
    texts: Sequence[str],
    token_ids: Sequence[Sequence[int] | None] | None = None,
) -> pd.DataFrame:
    """The table a run stores: `tokens` are real tokens per example, `texts` the decoded prompts."""
    import pandas as pd

    names = sorted({name for example in examples for name in example.conditions})
    return pd.DataFrame(
        {
            "example": range(len(examples)),
            "id": [example.id for example in examples],
            "dataset": dataset,
            "cluster": [example.cluster for example in examples],
            "tokens": list(tokens),
            "text": list(texts),
            "token_ids": [None] * len(examples) if token_ids is None else list(token_ids),
            **{
                f"c_{name}": pd.Series([example.conditions.get(name) for example in examples], dtype=object)
                for name in names
            },
        }
    )


def _integer(name: str, where: str, value: Any) -> int:
    if isinstance(value, bool) or int(value) != value or value < 0:
        raise DataError(f"example {name!r}: expected token ids of 0 or more in {where}; came {value!r}")
    return int(value)


def _pair(name: str, group: str, pair: Sequence[int]) -> tuple[int, int]:
    if len(pair) != 2:
        raise DataError(f"example {name!r}: expected [start, end) pairs in the spans of {group!r}; came {list(pair)}")
    return int(pair[0]), int(pair[1])
