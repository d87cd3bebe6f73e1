"""The last rows of a map as probes read them: weights that sum to 1, blocks of real keys, what a mask keeps of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.stats import NOTHING, AttentionStats
from .probe import position_of


def length_of(stats: AttentionStats) -> Tensor:
    """int64 [batch], real tokens of each example."""
    return position_of(stats)[:, 0].amax(-1) + 1


def tail_of(stats: AttentionStats, count: int) -> tuple[Tensor, Tensor]:
    """(weights [batch, head, row, key] of the last `count` queries; bool [batch, head], whether all of them are there).

    A learned sink logit takes no part: each row sums to 1.
    """
    rows = stats[f"tail_weights:{count}"]
    mass = rows.sum(-1, keepdim=True)
    return rows / mass.clamp(min=NOTHING), (mass[..., 0] > 0).all(-1)


def by_key_block(values: Tensor, stats: AttentionStats, size: int) -> Tensor:
    """Sums of values [batch, head, ..., key] over blocks of `size` real keys, [batch, head, ..., block]."""
    block = position_of(stats)[:, 0] // size
    index = block.view(block.shape[0], *[1] * (values.dim() - 2), -1).expand(values.shape)
    return values.new_zeros(*values.shape[:-1], -(-values.shape[-1] // size)).scatter_add_(-1, index, values)


def mass_kept(rows: Tensor, mask: Tensor) -> Tensor:
    """[batch, head], the mass of a row inside the mask, on average."""
    return torch.where(mask, rows, 0.0).sum(-1).mean(-1)


def largest(values: Tensor, count: Tensor) -> Tensor:
    """bool like values [batch, head, ..., place]: among the `count` [batch] largest of its last axis."""
    rank = values.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return rank < count.view(-1, *[1] * (values.dim() - 1))
