"""Bigram-Backcopy: a Markov chain in which a few trigger tokens make the token before them come again.

Source: Guo et al., "Active-Dormant Attention Heads" (task BB). After a trigger at i the next token copies token i-1,
otherwise it follows the bigram table. The table is a fixed Dirichlet draw over 64 ids in place of the paper's
Shakespeare letters, and the first three of them are the triggers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SYMBOLS = 64
TRIGGERS = 3
CONCENTRATION = 0.1
TRIGGER_SHARE = 0.15
TABLE_SEED = 1789


@dataclass(frozen=True)
class Source:
    """The ids of the chain, its bigram table, and which of them are triggers."""

    ids: np.ndarray  # [symbol]
    bigram: np.ndarray  # [symbol, next symbol]
    triggers: np.ndarray  # ids

    def is_trigger(self, tokens: np.ndarray) -> np.ndarray:
        """Where `tokens` holds a trigger."""
        return np.isin(tokens, self.triggers)


def source(ordinary: np.ndarray) -> Source:
    """The one chain of this package, over a fixed choice of the vocabulary's ordinary ids."""
    return _source(tuple(ordinary.tolist()))


@lru_cache(maxsize=4)
def _source(ordinary: tuple[int, ...]) -> Source:
    generator = np.random.default_rng(TABLE_SEED)
    ids = generator.choice(np.array(ordinary), size=SYMBOLS, replace=False)
    bigram = generator.dirichlet(np.full(SYMBOLS, CONCENTRATION), size=SYMBOLS)
    bigram[:, :TRIGGERS] = 0.0
    bigram *= (1 - TRIGGER_SHARE) / bigram.sum(axis=1, keepdims=True)
    bigram[:, :TRIGGERS] = TRIGGER_SHARE / TRIGGERS
    return Source(ids=ids, bigram=bigram, triggers=ids[:TRIGGERS])


def sample(
    generator: np.random.Generator, table: Source, *, rows: int, length: int, bos: int
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, copied): rows of `length` with BOS, and where a token is the copy that a trigger calls for."""
    cumulative = table.bigram.cumsum(axis=1)
    symbols = np.zeros((rows, length), dtype=np.int64)
    copied = np.zeros((rows, length), dtype=bool)
    symbols[:, 1] = generator.integers(TRIGGERS, SYMBOLS, size=rows)
    draws = generator.random((rows, length))
    for position in range(2, length):
        before = symbols[:, position - 1]
        drawn = (draws[:, position, None] > cumulative[before]).sum(axis=1).clip(max=SYMBOLS - 1)
        copied[:, position] = before < TRIGGERS
        symbols[:, position] = np.where(copied[:, position], symbols[:, position - 2], drawn)
    tokens = table.ids[symbols]
    tokens[:, 0] = bos
    return tokens, copied
