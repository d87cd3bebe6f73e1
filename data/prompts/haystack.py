"""The long text a needle is hidden in: whole paragraphs in a drawn order, cut to a number of tokens.

Sentences are encoded one by one as they read within a text, so every end of a sentence is known in tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..vocabulary import Vocabulary
from .text import FOLDER, read_text


@dataclass(frozen=True)
class Haystack:
    """Paragraphs, each a list of sentences, each a list of ids."""

    paragraphs: list[list[list[int]]]

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return sum(len(sentence) for paragraph in self.paragraphs for sentence in paragraph)

    @property
    def typical(self) -> int:
        """Tokens of the median sentence: less text than that is no haystack."""
        return int(np.median([len(sentence) for paragraph in self.paragraphs for sentence in paragraph]))

    def take(self, room: int, *, generator: np.random.Generator) -> tuple[list[int], list[int]]:
        """`room` tokens of paragraphs in a drawn order, and the ends of the sentences in them, 0 first.

        Text cut inside its first sentence has no other end than the cut.
        """
        if room > self.tokens:
            raise DataError(
                f"needle: the haystack has {self.tokens} tokens and {room} are needed. Ask for smaller lengths, "
                "or give a longer text: needle:haystack=FILE.txt"
            )
        ids: list[int] = []
        ends = [0]
        for index in generator.permutation(len(self.paragraphs)):
            for sentence in self.paragraphs[index]:
                ids += sentence
                ends.append(len(ids))
            if len(ids) >= room:
                break
        inside = [end for end in ends if end <= room]
        return ids[:room], inside if len(inside) > 1 else [0, room]


def read_haystack(vocab: Vocabulary, path: Path | None) -> Haystack:
    """The haystack of a text file, or of the shipped essays; lines that begin with `#` are titles and left out."""
    blocks = re.split(r"\n\s*\n", read_text(path or FOLDER / "essays.txt"))
    paragraphs = [" ".join(block.split()) for block in blocks if block.strip() and not block.lstrip().startswith("#")]
    if not paragraphs:
        raise DataError(f"needle: {path} holds no paragraph; expected text with blank lines between paragraphs")
    return Haystack([[vocab.follow(f" {sentence}") for sentence in sentences(block)] for block in paragraphs])


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph: cut after . ! or ? and a closing quote, before a blank."""
    return [one for one in re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"'\u201d])\s+", paragraph) if one]
