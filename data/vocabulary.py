"""What a prompt generator needs of a model's tokenizer, and nothing more.

A tokenizer is used through the calls every Hugging Face tokenizer answers; None stands for a model fed with ids alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .errors import DataError
from .frame import Frame, find_frame

ANCHORS = ("a", ".", "\n", "0")
"""Texts put before a piece to see how the tokenizer reads it in the middle of a text."""


class Vocabulary:
    """The ids of one model: `size` of them, the frame around a prompt, and text to ids and back."""

    def __init__(self, tokenizer: Any | None, vocab_size: int, *, bos: str = "default") -> None:
        self.tokenizer = tokenizer
        self.size = int(vocab_size)
        self.frame: Frame = find_frame(tokenizer, bos=bos)
        self._words: dict[str, int] = {}

    @property
    def frame_length(self) -> int:
        """Special tokens the encoder adds, so that a generator can count all tokens of the sequence."""
        return self.frame.length

    def room(self, length: int, *, least: int, name: str) -> int:
        """Tokens left for the body of a sequence of `length` tokens in all; fewer than `least` is an error."""
        room = int(length) - self.frame_length
        if room < least:
            raise DataError(
                f"{name}: length={length} leaves {room} tokens after {self.frame_length} special ones; "
                f"expected at least {least}. Ask for length={least + self.frame_length} or more"
            )
        return room

    def encode(self, text: str) -> list[int]:
        """Ids of a text that stands alone, without special tokens."""
        if self.tokenizer is None:
            raise DataError("this data set is text, which needs a tokenizer; use `repeats` or `random` for ids alone")
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def follow(self, text: str) -> list[int]:
        """Ids of a text as it reads right after other text, its leading space being its own."""
        for anchor in ANCHORS:
            before, both = self.encode(anchor), self.encode(anchor + text)
            if before and both[: len(before)] == before:
                return both[len(before) :]
        return self.encode(text)

    def count(self, text: str) -> int:
        """How many ids the words of a text take inside a sentence; words are looked up once each."""
        return sum(self._words.setdefault(word, 0) or self._learn(word) for word in text.split())

    def _learn(self, word: str) -> int:
        self._words[word] = len(self.follow(f" {word}"))
        return self._words[word]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; without a tokenizer, their numbers."""
        if self.tokenizer is None:
            return " ".join(str(one) for one in ids)
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def plain_ids(self) -> np.ndarray:
        """Ids that are safe to draw at random: known to the tokenizer, neither special nor added to it."""
        if self.tokenizer is None:
            return np.arange(self.size)
        known = {one for one in self.tokenizer.get_vocab().values() if one < self.size}
        added = getattr(self.tokenizer, "added_tokens_decoder", None) or self.tokenizer.get_added_vocab().values()
        plain = known - set(self.tokenizer.all_special_ids) - set(added)
        if not plain:
            raise DataError(f"the tokenizer has no plain token below {self.size}; check the model's vocabulary size")
        return np.array(sorted(plain))
