"""What an organism is trained on, in which order, and what must be measured before the next stage begins.

A stage ends at its gate (an accuracy that was measured) or, where it has none, after its number of steps. Budgets count
steps, never seconds, so a recipe and a seed fix the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Feed:
    """Batches of one row length: how often they come, and the families their rows are drawn from."""

    length: int
    share: float
    families: Mapping[str, float]


@dataclass(frozen=True)
class Gate:
    """`family` answered with at least `accuracy` at `length`; looked at every `every` steps.

    A gate that is not a `must` ends its stage early, and lets the run go on where it was not reached.
    """

    family: str
    length: int
    accuracy: float
    every: int = 25
    must: bool = True
    induction: float = 0.0
    """Attention that the best head must pay, in the second copy, to the token after the query's earlier occurrence.

    Repeats can also be continued by heads that read two tokens further on. Where that has been learnt, the stage
    starts again with new weights and new rows (the next attempt); the certificate counts the attempts.
    """


@dataclass(frozen=True)
class Stage:
    """One stretch of training with one mixture; layers above the present ones are grown at its start."""

    name: str
    layers: int
    steps: int
    feeds: tuple[Feed, ...]
    rate: float
    tokens: int = 2048
    """Tokens of a batch; rows are added until they reach it."""
    gate: Gate | None = None
    decay: float = 0.0
    """The last share of the steps, in which the rate falls to zero in a straight line."""
    warm_up: int = 50


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama with grouped queries."""

    hidden: int
    heads: int
    key_value_heads: int
    feed_forward: int
    positions: int = 1024
    rope_base: float = 10_000.0
    tied: bool = True
    """Whether the unembedding is the embedding. Untied, bigrams need no MLP: the token's own path predicts the next."""


@dataclass(frozen=True)
class Recipe:
    """A whole training run, but for its seed."""

    name: str
    shape: Shape
    stages: tuple[Stage, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    """Fixed beforehand; the first one ships, whatever comes."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
