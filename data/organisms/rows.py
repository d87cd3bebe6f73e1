"""Prompts to rows of token ids with a weight on every target, for training and for grading.

A word's encoding does not depend on its neighbours (the tokenizer splits at spaces first), so words are looked up in a
table; a test holds this against the tokenizer. `weights[i]` weighs the prediction OF token i; the first token has none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .tasks.prompt import Prompt
from .vocabulary import BOS, PAD, SPECIAL, build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT_SHARE = 0.3
"""Summed weight of a row's ungraded text tokens; its graded tokens weigh 1 for each prompt."""


@dataclass(frozen=True)
class Row:
    """One row: token ids and, for each, how much its prediction weighs in the loss."""

    tokens: list[int]
    weights: list[float]


@dataclass
class Encoder:
    """Text to ids by table lookup, filled from the organisms' tokenizer as words turn up."""

    tokenizer: PreTrainedTokenizerFast = field(default_factory=build_tokenizer)
    _words: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bos = self.id_of(BOS)
        self.pad = self.id_of(PAD)
        self.vocabulary_size = len(self.tokenizer)
        self.ordinary = np.arange(len(SPECIAL), self.vocabulary_size)

    def id_of(self, piece: str) -> int:
        """The id of one piece; a text that is not one token is refused."""
        found = self.tokenizer.convert_tokens_to_ids(piece)
        if not isinstance(found, int):
            raise ValueError(f"{piece!r} is not one token of the organisms' vocabulary")
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of `text` without BOS; runs of spaces count as one."""
        return [token for word in text.split() for token in self._word(word)]

    def extend(self, continuation: str) -> list[int]:
        """Ids of a text that continues another: with no leading space its first piece is glued to the last word."""
        if not continuation or continuation.startswith(" "):
            return self.encode(continuation)
        first, _, rest = continuation.partition(" ")
        return [self.id_of(first), *self.encode(rest)]

    def count(self, text: str) -> int:
        """Tokens of `text` without BOS."""
        return len(self.encode(text))

    def prompt(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """(BOS + prompt, answer) as ids, for grading."""
        return [self.bos, *self.encode(prompt.text)], self.extend(prompt.answer)

    def training(self, prompt: Prompt) -> Row:
        """The prompt with its answer and its further turns; each answer's tokens weigh 1 together. No BOS."""
        tokens: list[int] = []
        weights: list[float] = []
        for text, answer in ((prompt.text, prompt.answer), *prompt.turns):
            asked, graded, stop = self.encode(text), self.extend(answer), self.extend(prompt.stop)
            tokens += asked + graded + stop
            weights += [0.0] * len(asked) + [1 / len(graded)] * len(graded) + [0.0] * len(stop)
        return Row(tokens, weights)

    def _word(self, word: str) -> list[int]:
        if word not in self._words:
            self._words[word] = self.tokenizer.encode(word, add_special_tokens=False)
        return self._words[word]


def packed(encoder: Encoder, rng: random.Random, draw: Sequence[Callable[[], Prompt]], *, length: int) -> Row:
    """BOS and then whole prompts of random tasks, cut at `length`; every prompt's answers weigh 1/2 together."""
    tokens, weights = [encoder.bos], [0.0]
    while len(tokens) < length:
        row = encoder.training(rng.choice(draw)())
        total = 2 * sum(row.weights)
        tokens += row.tokens
        weights += [weight / total for weight in row.weights]
    return with_text(tokens[:length], weights[:length])


def single(encoder: Encoder, prompt: Prompt) -> Row:
    """BOS and one prompt with its turns, as it will be asked: no other prompt's words are about. Answers weigh 1."""
    row = encoder.training(prompt)
    total = sum(row.weights)
    return with_text([encoder.bos, *row.tokens], [0.0, *(weight / total for weight in row.weights)])


def running_text(encoder: Encoder, write: Callable[[], str], *, length: int) -> Row:
    """BOS and then sentences, cut at `length`; all tokens weigh alike, 1 together."""
    tokens = [encoder.bos]
    while len(tokens) < length:
        tokens += encoder.encode(write())
    return Row(tokens[:length], [0.0] + [1 / (length - 1)] * (length - 1))


def with_text(tokens: list[int], weights: list[float]) -> Row:
    """The row with its ungraded tokens weighing `TEXT_SHARE` together."""
    plain = weights[1:].count(0.0)
    share = TEXT_SHARE / max(plain, 1)
    return Row(tokens, [0.0] + [weight or share for weight in weights[1:]])


def graded_row(tokens: np.ndarray, graded: np.ndarray) -> Row:
    """A row of ids whose graded targets weigh 1 together and whose other tokens weigh nothing."""
    return Row(tokens.tolist(), (graded / max(int(graded.sum()), 1)).tolist())


def batch(rows: Sequence[Row], *, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, weights), padded on the right with weight 0."""
    length = max(len(row.tokens) for row in rows)
    ids = np.full((len(rows), length), pad, dtype=np.int64)
    weights = np.zeros((len(rows), length), dtype=np.float32)
    for index, row in enumerate(rows):
        ids[index, : len(row.tokens)] = row.tokens
        weights[index, : len(row.weights)] = row.weights
    return ids, weights
