"""Speed and memory of the statistics of one attention call, against torch's own attention on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any, cast

import torch

from .inputs import AttentionInputs, Visibility
from .reference import reference_stats
from .stats import FIELDS
from .streaming import streaming_stats
from .timing import peak_megabytes, ratio, side_by_side

PARAMETERS = {"window_mass": ":16", "clipped_distance": ":10", "future_average": ":10:100", "weight_at": ":first"}
EVERYTHING = frozenset(name + PARAMETERS.get(name, "") for name in FIELDS) - {"output"}
"""Every statistic at once."""
USUAL = frozenset({"logsumexp", "entropy", "max_weight", "sum_squares", "group_mass", "received", "weight_at:first"})
"""Rows, groups and received attention."""
LENGTHS = (512, 2048, 8192)


def call_of(length: int, *, heads: int = 8, width: int = 64) -> AttentionInputs:
    """A random causal call with 16 groups."""
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, Any] = {
        name: torch.randn(1, heads, length, width, generator=random) for name in ("query", "key", "value")
    }
    tokens = torch.randint(5000, (1, length), generator=random)
    return AttentionInputs(
        **tensors, scale=width**-0.5, visibility=Visibility(after=0), group_count=16,
        key_groups=torch.randint(16, (1, length), generator=random).to(torch.int8),
        query_groups=torch.randint(16, (1, length), generator=random).to(torch.int8),
        query_tokens=tokens, key_tokens=tokens, targets={"first": torch.zeros(1, length, dtype=torch.long)},
    )  # fmt: skip


def providers(length: int) -> dict[str, Callable[[], object]]:
    """What is compared at one length; the first is what the others are divided by."""
    inputs = call_of(length)

    operands = (inputs.query, inputs.key, cast(torch.Tensor, inputs.value))

    def sdpa() -> object:
        return torch.nn.functional.scaled_dot_product_attention(*operands, is_causal=True)

    def maps() -> object:
        logits = inputs.scale * inputs.query @ inputs.key.mT
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        return logits.masked_fill_(hidden, -torch.inf).softmax(-1)

    found: dict[str, Callable[[], object]] = {
        "torch SDPA forward": sdpa,
        "headatlas, usual": lambda: streaming_stats(inputs, USUAL),
        "headatlas, everything": lambda: streaming_stats(inputs, EVERYTHING),
    }
    if length <= 2048:
        found["n x n softmax, no statistics"] = maps
    return found


def check() -> None:
    """Refuse to time wrong numbers: the streamed fields against the definition at 300 tokens."""
    inputs = call_of(300)
    expected = reference_stats(inputs, EVERYTHING)
    for name, value in streaming_stats(inputs, EVERYTHING).items():
        if name != "argmax_key":
            torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-4, atol=1e-4)


def times(length: int, repeats: int) -> list[dict[str, Any]]:
    """One row per provider: milliseconds and the ratio to the first provider, taken pair by pair."""
    seconds = side_by_side(providers(length), repeats)
    base = next(iter(seconds.values()))
    rows = []
    for name, values in seconds.items():
        middle, low, high = ratio(values, base)
        rows.append(
            {"table": "kernels", "length": length, "provider": name, "ms": round(1e3 * median(values), 2),
             "ratio": round(middle, 2), "ratio_low": round(low, 2), "ratio_high": round(high, 2)}
        )  # fmt: skip
    return rows


def memory(length: int, provider: str) -> float:
    """Peak MB of one provider above its inputs; call it in a fresh process."""
    call = providers(length)[provider]
    providers(64)[provider]()
    return peak_megabytes(call)
