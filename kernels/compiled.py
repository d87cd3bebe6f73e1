"""Every elementwise statistic of a tile in one compiled pass: optional, for large calls on a CPU.

Run operator by operator, a tile is read once or twice for each statistic. Compiled, it is read for its peaks, then once
for everything else, and once more where blocks of keys are asked for. Cost per cell: one exponential, one write of its
weight, two to four FLOPs a sum. torch compiles on first use, for which it needs a C++ compiler and up to half a minute,
and keeps what it compiled on disk. A compiled tile keeps no shifted logits: a statistic of them has its line here too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from inspect import signature

import torch
from torch import Tensor

from .distances import NEAR
from .stats import BLOCK_SIZE, FLOOR, parameters

Sum = Callable[[Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]
SUMS: dict[str, Sum] = {
    "sum_squares": lambda weights, *_: weights.square().sum(-1).sqrt(),
    "logit_sum": lambda _, shifted, *rest: shifted.sum(-1),
    "logit_sum_squares": lambda _, shifted, *rest: shifted.square().sum(-1).sqrt(),
    "entropy": lambda weights, shifted, *_: (weights * shifted).sum(-1),
    **{
        base: lambda weights, _, gap, words, factor=factor: (weights * factor(gap, *words)).sum(-1)
        for base, factor in NEAR.items()
    },
}
"""What `rows.COLLECT` sums for these statistics, from (weights, shifted, |i - j|, parameters)."""
Wanted = tuple[tuple[str, str, tuple[int, ...]], ...]
"""(name, base, parameters) of the sums asked for."""


@cache
def wanted(needs: frozenset[str]) -> Wanted:
    """What of `needs` is a sum of the pass."""
    return tuple((name, base, words) for base in SUMS for name, words in parameters(needs, base))


def one_pass(
    logits: Tensor, query: Tensor, key: Tensor, asked: Wanted, blocks: bool, cells: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """(weights [row, key], sums over keys [row]); with `blocks`, sums and maxima of each key block too.

    With `cells`, also weights times shifted logits of each cell, which a sum over queries needs.

    `logits` [row, key] are in bits, hidden cells at HIDDEN or below; `query` [row] and `key` [key] are positions.
    """
    peak = logits.amax(-1)
    seen = logits > FLOOR
    shifted = torch.where(seen, logits - peak[:, None], 0.0)
    weights = torch.where(seen, torch.exp2(shifted), 0.0)
    gap = (query[:, None] - key).abs()
    sums = {"peak": peak, "total": weights.sum(-1)}
    for name, base, words in asked:
        sums[name] = SUMS[base](weights, shifted, gap, words)
    if blocks:
        grid = weights.view(weights.shape[0], -1, BLOCK_SIZE)
        sums |= {"block_maxima": grid.amax(-1), "block_sums": grid.sum(-1)}
    if cells:
        sums["information"] = weights * shifted
    return weights, sums


@cache
def _compiled(
    asked: Wanted, blocks: bool, cells: bool
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]:
    def run(logits: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return one_pass(logits, query, key, asked, blocks, cells)

    return torch.compile(run, dynamic=True, fullgraph=True, isolate_recompiles=True)  # type: ignore[call-overload]


def compiled_pass(
    logits: Tensor, query: Tensor, key: Tensor, asked: Wanted, *, blocks: bool, cells: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """`one_pass`, compiled once for rows of any length.

    The number of keys is kept from the compiler: above 4,096 it would sum in a way that takes twice as long.
    """
    from torch._dynamo.decorators import mark_unbacked  # takes a second to import

    mark_unbacked(logits, 1)
    mark_unbacked(key, 0)
    return _compiled(asked, blocks, cells)(logits, query, key)


def obstacle(device: torch.device) -> str | None:
    """Why nothing can be compiled for tensors on `device` here, or None."""
    if device.type != "cpu":
        return f"the tensors are on {device.type}, and it is for a CPU"
    if "isolate_recompiles" not in signature(torch.compile).parameters:
        return f"torch {torch.__version__} is too old for it, 2.13 is known to do"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"there is no C++ compiler {compiler!r}; install one, or name it in CXX"
