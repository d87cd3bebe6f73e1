"""What a run will take, before it runs: arithmetic, but for the measured speed of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .models import Model

REACHED = 0.25
"""Share of the matmul speed that small models and elementwise statistics reach."""
OVERHEAD = 0.004
"""Seconds that a forward spends per layer besides arithmetic."""


@dataclass(frozen=True)
class Cost:
    """Tokens, forwards, FLOPs, seconds and bytes of a run."""

    examples: int
    tokens: int
    forwards: int
    flops: float
    seconds: float
    bytes: float
    """Weights and activations."""
    map_bytes: float
    """What n x n maps would take beside them."""


def cost_of(model: Model, lengths: Sequence[int], *, batch_tokens: int, more: int = 0) -> Cost:
    """The cost of a run over prompts of these lengths in forwards of so many tokens, with `more` plain ones each."""
    card = model.card()
    layers, heads, width = card["layers"] or 1, card["heads"] or 1, card["head_dim"] or 64
    pairs = cells_of(model, lengths)
    tokens, longest = sum(lengths), max(lengths)
    together = max(1, min(batch_tokens, tokens))
    forwards = -(-tokens // together)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())
    hidden = getattr(model.config, "hidden_size", 768)
    widest = max(getattr(model.config, "intermediate_size", 0) or 4 * hidden, 4 * hidden)
    plain = 2.0 * card["parameters"] * tokens + pairs * 4 * width
    flops = plain * (1 + more) + pairs * (2 * width + 60)
    return Cost(
        examples=len(lengths),
        tokens=tokens,
        forwards=forwards,
        flops=flops,
        seconds=flops / (REACHED * matmul_rate(model)) + OVERHEAD * layers * forwards * (1 + more),
        bytes=weights + together * 4.0 * (6 * hidden + 2 * widest) + 16e6,
        map_bytes=longest**2 * 4.0 * layers * heads * max(1, together // longest),
    )


def cells_of(model: Model, lengths: Sequence[int]) -> float:
    """(layer, head, query, key) cells that a causal model sees in prompts of these lengths."""
    card = model.card()
    return sum(length * length / 2 for length in lengths) * (card["layers"] or 1) * (card["heads"] or 1)


def matmul_rate(model: Model, size: int = 512) -> float:
    """FLOPs a second of a square matrix product where the model runs, in its data type; takes milliseconds."""
    left = torch.ones(size, size, dtype=model.network.dtype, device=model.device)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        (left @ left).sum().item()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)
