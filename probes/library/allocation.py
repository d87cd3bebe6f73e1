"""Where the mass goes: one share per token group (BOS, separators, user, needle, image, ...)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...data.groups import GROUPS
from ...kernels.stats import AttentionStats
from ..probe import probe

PARTS = tuple(name for name in GROUPS if name != "padding")
"""Every label that a real token may carry."""


@probe(
    needs={"group_mass"},
    parts=PARTS,
    title="Group mass",
    formula="mean_i sum_{j in group} p_ij, one part per group",
    unit="mass",
    bounds=(0, 1),
    higher="the head reads this group of tokens",
    caveat="a group of many tokens gets more by chance: divide by its share of the visible keys to compare groups",
    source="context allocation as in Wang et al., On the Loss of Context-awareness, section 3",
)
def group_mass(stats: AttentionStats) -> Tensor:
    """Mean attention weight on each group of tokens; a group the prompt does not have is undefined.

    >>> from headatlas.probes.worked import stats_of
    >>> stats = stats_of([[1, 0], [0.25, 0.75]], group_mass.needs, groups=["bos", "rest"])
    >>> values = group_mass.measure(stats).values[0, 0]
    >>> {part: value for part, value in zip(PARTS, values.tolist()) if value == value}
    {'rest': 0.375, 'bos': 0.625}
    """
    mass = stats["group_mass"]
    values = mass.new_full((*mass.shape[:-1], len(PARTS)), torch.nan)
    if stats.key_groups is None:
        return values
    for index, name in enumerate(stats.group_names):
        if name in PARTS:
            present = (stats.key_groups == index).any(1)[:, None, None]
            values[..., PARTS.index(name)] = torch.where(present, mass[..., index], torch.nan)
    return values
