"""Random repeats and reversed pairs: rows of token ids, not of text.

A repeat is a random segment said again and again until the row is full; from the second token of the second copy on
every token is predictable. Source: Olsson et al., "In-context Learning and Induction Heads" (random repeated tokens).

Reversed pairs, 'a b  c d  e f ... ? d c  ? b a  ? f e', ask for the token BEFORE the earlier occurrence: the step that
coloured objects and lettered options need, with many graded tokens a row. Training only; not a task of the certificate.
"""

from __future__ import annotations

import numpy as np

Row = tuple[np.ndarray, np.ndarray]


def repeat(rng: np.random.Generator, *, ids: np.ndarray, bos: int, length: int, segment: int | None = None) -> Row:
    """(tokens, graded): `length` tokens with BOS; graded marks the targets from the second token of copy two.

    Without `segment` its length is drawn, at most half the row and more often long. A fixed one would be learnt as a
    fixed distance to look back, which is not induction.
    """
    if segment is None:
        segment = int(rng.integers(8, (length - 1) // 2 + 1, size=2).max())
    unit = rng.choice(ids, size=segment)
    tokens = np.concatenate([[bos], np.resize(unit, length - 1)])
    graded = np.arange(length) > segment + 1
    return tokens, graded


def ambiguous_repeat(rng: np.random.Generator, *, ids: np.ndarray, bos: int, length: int) -> Row:
    """A repeat over few distinct tokens: each occurs two to five times a segment, so one does not tell the place.

    Matching the last two or more tokens does, which is what a needle among distractors asks for. Graded from the fourth
    token of copy two. Training only.
    """
    segment = int(rng.integers(12, (length - 1) // 2 + 1, size=2).max())
    alphabet = rng.choice(ids, size=max(4, segment // int(rng.integers(2, 6))), replace=False)
    tokens, _ = repeat(rng, ids=alphabet, bos=bos, length=length, segment=segment)
    return tokens, np.arange(length) > segment + 3


def reversed_pairs(rng: np.random.Generator, *, ids: np.ndarray, bos: int, marker: int, length: int) -> Row:
    """(tokens, graded): the row states pairs, then asks for each backwards behind a marker, 'a b c d ... ? d c ? b a'.

    Without the marker a token would call for its successor in one row and its predecessor in another: repeats suffer.
    """
    count = (length - 1) // 5
    words = rng.choice(ids[ids != marker], size=2 * count, replace=False).reshape(count, 2)
    asked = words[rng.permutation(count)][:, ::-1]
    marked = np.concatenate([np.full((count, 1), marker), asked], axis=1)
    tokens = np.concatenate([[bos], words.ravel(), marked.ravel()])
    graded = np.zeros(len(tokens), dtype=bool)
    graded[3 + 2 * count :: 3] = True
    return tokens, graded
