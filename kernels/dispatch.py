"""Which implementation computes the statistics of a call."""

from __future__ import annotations

import os
from collections.abc import Callable

from torch import Tensor

from .inputs import AttentionInputs
from .reference import reference_stats
from .streaming import streaming_stats

BACKENDS: dict[str, Callable[[AttentionInputs, frozenset[str]], dict[str, Tensor]]] = {
    "streaming": streaming_stats,
    "reference": reference_stats,
}


def backend() -> str:
    """The backend in force: HEADATLAS_BACKEND where it is set, `streaming` otherwise."""
    name = os.environ.get("HEADATLAS_BACKEND", "streaming")
    if name not in BACKENDS:
        raise ValueError(f"HEADATLAS_BACKEND: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def attention_stats(inputs: AttentionInputs, needs: frozenset[str]) -> dict[str, Tensor]:
    """Every field of `needs` for one attention call, by the backend in force."""
    return BACKENDS[backend()](inputs, needs)
