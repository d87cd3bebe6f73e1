"""What a probe is: a pure reduction of one attention call's statistics to one number per example and head.

Most probes are a mean over queries, so they only say what a query contributes: the decorated function returns
[batch, head, query] (or [batch, head, query, part]), NaN where a query has no say, and padding is left out here, once.
A probe that is no mean over queries declares `per="example"` and returns [batch, head] (or [batch, head, part]) itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..data.errors import ProbeError, failure_of
from ..data.groups import family
from ..kernels.stats import AttentionStats, split_name

Function = Callable[[AttentionStats], Tensor]


@dataclass(frozen=True)
class Reading:
    """What a probe says of each example and head, and how many queries said it."""

    values: Tensor
    """[batch, head, part], NaN where undefined."""
    n_queries: Tensor
    """int [batch, head, part]."""


@dataclass(frozen=True)
class Probe:
    """A head reading with everything a reader must know to trust it. Made by the decorator `probe`."""

    name: str
    function: Function = field(repr=False)
    title: str
    summary: str
    formula: str
    needs: frozenset[str]
    unit: str
    bounds: tuple[float, float | None]
    higher: str
    """What a high value means."""
    caveat: str
    """What it does not show."""
    source: str
    family: str = ""
    version: int = 1
    groups: tuple[str, ...] = ()
    """Token groups the prompts must have; without them the probe is skipped."""
    parts: tuple[str, ...] = ()
    default_data: str = "text"
    binary: bool = False
    """One 0 or 1 per example: its interval is Wilson's."""
    per: Literal["query", "example"] = "query"
    causal_only: bool = False
    not_shuffled: str = ""
    """Why it means nothing on shuffled tokens, where it is then not measured; empty: it is."""
    first_queries: int | None = None
    """A probe of whole examples that reads only so many queries, from the first; None: all of them."""
    explanation: str = field(default="", repr=False)
    file: Path | None = field(default=None, repr=False)
    """The user's own file it stands in; None for a probe that is installed."""
    code: str = field(default="", repr=False)
    """Digest of that file: with other code it is another measurement, and another run."""

    def __post_init__(self) -> None:
        for name in self.needs:
            split_name(name)

    @property
    def spelled(self) -> str:
        """Name with version, `entropy@1`."""
        return f"{self.name}@{self.version}"

    def applies(self, stats: AttentionStats) -> bool:
        """Whether this call has what the probe needs: its statistics, its labels, and causality where it matters."""
        labelled = not self.groups or stats.query_groups is not None
        return labelled and self.needs <= set(stats.values_by_name) and not (self.causal_only and not stats.call.causal)

    def positions(self, stats: AttentionStats) -> Tensor:
        """What each query contributes, [batch, head, query, part], NaN at padding and where undefined."""
        if self.per != "query":
            raise ValueError(f"probe {self.name!r} reads whole examples; it has no value per query")
        values = self._call(stats)
        values = values if self.parts else values[..., None]
        silent = stats["visible_keys"][..., None] == 0
        if stats.real_queries is not None:
            silent = silent | ~stats.real_queries[:, None, :, None]
        return values.masked_fill(silent, torch.nan)

    def measure(self, stats: AttentionStats) -> Reading:
        """One number per example, head and part, with the number of queries behind it."""
        if self.per == "query":
            values = self.positions(stats)
            count = (~values.isnan()).sum(2)
            return Reading(values.nanmean(2), count)
        values = self._call(stats)
        values = values if self.parts else values[..., None]
        batch, _, queries = stats["visible_keys"].shape
        real = torch.full((batch,), queries) if stats.real_queries is None else stats.real_queries.sum(1).cpu()
        count = real.clamp(max=self.first_queries)[:, None, None].expand(values.shape)
        return Reading(values, torch.where(values.isnan().cpu(), 0, count))

    def _call(self, stats: AttentionStats) -> Tensor:
        values = self._of_function(stats.read_by(f"probe {self.name!r}", self.needs))
        axes = 3 if self.per == "query" else 2
        expected = axes + bool(self.parts)
        if values.dim() != expected or (self.parts and values.shape[-1] != len(self.parts)):
            shape = "[batch, head, query" if self.per == "query" else "[batch, head"
            raise ProbeError(
                f"probe {self.name!r}, layer {stats.layer}: expected {shape}{', part' if self.parts else ''}]"
                f"{f' with {len(self.parts)} parts' if self.parts else ''}, got {list(values.shape)}"
            )
        return values

    def _of_function(self, stats: AttentionStats) -> Tensor:
        if self.file is None:
            return self.function(stats)
        try:
            return torch.as_tensor(self.function(stats))
        except Exception as error:
            what = f"probe {self.name!r}, layer {stats.layer}: {failure_of(error, self.file)}"
            raise ProbeError(what, exit_code=1) from error

    def card(self) -> dict[str, Any]:
        """The probe as plain data, for a run's header, tables and pages."""
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("function", "file")}
        return data | {"needs": sorted(self.needs), "groups": list(self.groups), "parts": list(self.parts),
                       "bounds": list(self.bounds)}  # fmt: skip


def probe(
    *,
    needs: set[str] | frozenset[str],
    title: str,
    formula: str,
    unit: str,
    bounds: tuple[float, float | None],
    higher: str,
    caveat: str,
    source: str,
    **options: Any,
) -> Callable[[Function], Probe]:
    """Make a `Probe` of a function (stats) -> values; its name, summary and family come from where it stands."""

    def make(function: Function) -> Probe:
        explanation = inspect.getdoc(function) or ""
        return Probe(
            name=function.__name__,
            function=function,
            summary=explanation.split("\n\n")[0].replace("\n", " "),
            explanation=explanation,
            family=options.pop("family", function.__module__.rpartition(".")[2]),
            needs=frozenset(needs),
            title=title,
            formula=formula,
            unit=unit,
            bounds=bounds,
            higher=higher,
            caveat=caveat,
            source=source,
            **options,
        )

    return make


def queries_in(stats: AttentionStats, group: str) -> Tensor:
    """bool [batch, 1, query], True for queries labelled `group` or a group under it."""
    members = [index for index, name in enumerate(stats.group_names) if name in family(group)]
    if stats.query_groups is None:
        raise ValueError(f"group {group!r}: the queries of tower {stats.call.tower!r} carry no labels")
    wanted = torch.tensor(members, dtype=stats.query_groups.dtype, device=stats.query_groups.device)
    return torch.isin(stats.query_groups, wanted)[:, None]


def position_of(stats: AttentionStats) -> Tensor:
    """How many real tokens stand before each query, [batch, 1, query]; 0 for the first one, wherever padding is."""
    batch, _, queries = stats["visible_keys"].shape
    if stats.real_queries is None:
        return torch.arange(queries, device=stats["visible_keys"].device).expand(batch, 1, -1)
    return (stats.real_queries.long().cumsum(1) - 1).clamp(min=0)[:, None]
