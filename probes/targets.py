"""Named keys, one per query: the `target` of the statistic `weight_at:<target>`.

Adding one: a function of the real tokens, bool [batch, key] -> key index [batch, query], -1 = none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..kernels.stats import split_name

Target = Callable[[Tensor], Tensor]


def first(real: Tensor) -> Tensor:
    """The first real token of the sequence, whether or not it is a BOS."""
    return real.long().argmax(1, keepdim=True).expand(real.shape)


def previous(real: Tensor) -> Tensor:
    """The token right before the query; none for the first real token."""
    before = torch.nn.functional.pad(real, (1, -1))
    index = torch.arange(real.shape[1], device=real.device) - 1
    return torch.where(before & real, index, -1)


def itself(real: Tensor) -> Tensor:
    """The query's own position."""
    return torch.where(real, torch.arange(real.shape[1], device=real.device), -1)


TARGETS: dict[str, Target] = {"first": first, "previous": previous, "self": itself}


def find_target(name: str) -> Target:
    """The target called `name`."""
    if name not in TARGETS:
        raise KeyError(f"no weight_at target is called {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]


def targets_of(needs: Iterable[str], real: Tensor) -> dict[str, Tensor]:
    """Every target that the statistics `needs` name, over the real tokens of a batch."""
    named = [arguments[0] for base, arguments in map(split_name, needs) if base == "weight_at"]
    return {name: find_target(name)(real) for name in named}
