"""What a probe is: a pure reduction of one attention call's statistics to one number per example and head.

Most probes are a mean over queries, so they only say what a query contributes: the decorated function returns
[batch, head, query] (or [batch, head, query, part]), NaN where a query has no say, and padding is left out here, once.
What is said of keys (how much one receives) declares `per="key"`, returns [batch, head, key] and says how keys are
put `together`: their mean, sum or max. A probe that is neither declares `per="example"` and returns [batch, head]
(or [batch, head, part]) itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..data.errors import ProbeError
from ..data.groups import family
from ..kernels.stats import AttentionStats
from .measurement import Measurement, deciding
from .residual import RESIDUAL, check_names


@dataclass(frozen=True)
class Reading:
    """What a probe says of each example and head, and how many queries said it."""

    values: Tensor
    """[batch, head, part], NaN where undefined."""
    n_queries: Tensor
    """int [batch, head, part]."""


@dataclass(frozen=True, kw_only=True)
class Probe(Measurement):
    """A head reading of one attention call's statistics. Made by the decorator `probe`."""

    per: Literal["query", "key", "example"] = "query"
    together: Literal["mean", "sum", "max"] = "mean"
    """How the positions of an example become one number."""
    first_queries: int | None = None
    """A probe of whole examples that reads only so many queries, from one end; None: all of them."""

    def __post_init__(self) -> None:
        check_names(self.needs)

    @property
    def of_layers(self) -> bool:
        """It reads the residual stream: one number for a whole layer, no head."""
        return any(name in RESIDUAL for name in self.needs)

    def applies(self, stats: AttentionStats) -> bool:
        """Whether this call has what the probe needs: its statistics, its labels, and causality where it matters."""
        labelled = not self.groups or stats.query_groups is not None
        fits = not (self.causal_only and not stats.call.causal) and not (self.per == "key" and stats.call.cross)
        return labelled and fits and self.needs <= set(stats.values_by_name)

    def positions(self, stats: AttentionStats) -> Tensor:
        """What each query (or key) contributes, [batch, head, position, part], NaN at padding and where undefined."""
        if self.per == "example":
            raise ValueError(f"probe {self.name!r} reads whole examples; it has no value per query")
        values = self._call(stats)
        values = values if self.parts else values[..., None]
        padding = None if stats.real_queries is None else ~stats.real_queries[:, None, :, None]
        if self.per == "query":
            silent = stats["visible_keys"][..., None] == 0
            padding = silent if padding is None else silent | padding
        return values if padding is None else values.masked_fill(padding, torch.nan)

    def measure(self, stats: AttentionStats) -> Reading:
        """One number per example, head and part, with the number of positions behind it."""
        if self.per != "example":
            values = self.positions(stats)
            count = (~values.isnan()).sum(2)
            return Reading(self._together(values, count), count)
        values = self._call(stats)
        values = values if self.parts else values[..., None]
        batch, _, queries = stats["visible_keys"].shape
        real = torch.full((batch,), queries) if stats.real_queries is None else stats.real_queries.sum(1).cpu()
        count = real if self.first_queries is None else real.clamp(max=self.first_queries)
        count = count[:, None, None].expand(values.shape)
        return Reading(values, torch.where(values.isnan().cpu(), 0, count))

    def _together(self, values: Tensor, count: Tensor) -> Tensor:
        """[batch, head, part] of values [batch, head, position, part]; NaN where none is defined."""
        if self.together == "mean":
            return values.nanmean(2)
        if self.together == "sum":
            return torch.where(count > 0, values.nansum(2), torch.nan)
        return torch.where(count > 0, values.nan_to_num(-torch.inf).amax(2), torch.nan)

    def _call(self, stats: AttentionStats) -> Tensor:
        values = torch.as_tensor(self.said(f"layer {stats.layer}", stats.read_by(f"probe {self.name!r}", self.needs)))
        axes = 2 if self.per == "example" else 3
        expected = axes + bool(self.parts)
        if values.dim() != expected or (self.parts and values.shape[-1] != len(self.parts)):
            shape = "[batch, head" if self.per == "example" else f"[batch, head, {self.per}"
            raise ProbeError(
                f"probe {self.name!r}, layer {stats.layer}: expected {shape}{', part' if self.parts else ''}]"
                f"{f' with {len(self.parts)} parts' if self.parts else ''}, got {list(values.shape)}"
            )
        return values


probe = deciding(Probe)


def queries_in(stats: AttentionStats, group: str) -> Tensor:
    """bool [batch, 1, query], True for queries labelled `group` or a group under it."""
    members = [index for index, name in enumerate(stats.group_names) if name in family(group)]
    if stats.query_groups is None:
        raise ValueError(f"group {group!r}: the queries of tower {stats.call.tower!r} carry no labels")
    wanted = torch.tensor(members, dtype=stats.query_groups.dtype, device=stats.query_groups.device)
    return torch.isin(stats.query_groups, wanted)[:, None]


def answering(stats: AttentionStats) -> Tensor:
    """bool [batch, 1, query], True for queries whose next token is part of the answer."""
    if stats.key_groups is None or "answer" not in stats.group_names:
        raise ValueError(f"the tokens of tower {stats.call.tower!r} carry no label `answer`")
    following = torch.nn.functional.pad(stats.key_groups[:, 1:], (0, 1), value=-1)
    return (following == stats.group_names.index("answer"))[:, None]


def keys_in(stats: AttentionStats, group: str) -> Tensor:
    """bool [batch, 1, key], True for keys labelled `group` or a group under it."""
    members = [index for index, name in enumerate(stats.group_names) if name in family(group)]
    if stats.key_groups is None:
        raise ValueError(f"group {group!r}: the keys of tower {stats.call.tower!r} carry no labels")
    return torch.isin(stats.key_groups, torch.tensor(members, dtype=torch.int8, device=stats.key_groups.device))[
        :, None
    ]


def watchers(stats: AttentionStats) -> Tensor:
    """int64 [batch, 1, key], how many real queries can see each key."""
    batch, _, queries = stats["visible_keys"].shape
    real = stats.real_queries
    count = torch.full((batch, 1), queries) if real is None else real.sum(1, keepdim=True).cpu()
    count = count.to(stats["visible_keys"].device)[..., None].expand(-1, -1, queries)
    if stats.call.causal:
        count = count - position_of(stats)
    return count if stats.call.window is None else count.clamp(max=stats.call.window)


def total(values: Tensor, where: Tensor) -> Tensor:
    """Sum of values [..., position] over the positions that count; what the others hold, NaN too, is left out."""
    return torch.where(where, values, 0.0).sum(-1)


def position_of(stats: AttentionStats) -> Tensor:
    """How many real tokens stand before each query, [batch, 1, query]; 0 for the first one, wherever padding is."""
    batch, _, queries = stats["visible_keys"].shape
    if stats.real_queries is None:
        return torch.arange(queries, device=stats["visible_keys"].device).expand(batch, 1, -1)
    return (stats.real_queries.long().cumsum(1) - 1).clamp(min=0)[:, None]
