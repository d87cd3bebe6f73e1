"""Readings on their way to the store: the tables of one chunk, filled call by call."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..kernels.stats import BLOCK_SIZE, AttentionStats, Call
from .measurement import Measurement
from .probe import Probe, Reading

MAP_FIELDS = frozenset({"pooled_mean", "pooled_max"})
NUMBERS = ("example", "layer", "head", "value", "n_queries")
NAMES = ("probe", "part", "tower")
POSITION = ("example", "probe", "part", "tower", "layer", "head", "axis", "values")
MAP = ("example", "tower", "layer", "head", "kind", "block", "rows", "cols", "values")
Columns = dict[str, list[Any]]


@dataclass
class ChunkTables:
    """Value rows of all examples of a chunk; per-token lists and pooled maps of the first examples of a run."""

    probes: tuple[Probe, ...]
    with_maps: bool
    numbers: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in NUMBERS})
    names: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: {name: [] for name in NAMES})
    positions: Columns = field(default_factory=lambda: defaultdict(list))
    maps: Columns = field(default_factory=lambda: defaultdict(list))

    def open(self, first: int, lengths: list[int], keep: int) -> BatchTables:
        """The same tables for one batch, whose first example has number `first`."""
        return BatchTables(self, first, lengths, range(first, min(first + len(lengths), keep)))

    def add_reading(self, one: Measurement, call: Call, reading: Reading, first: int) -> None:
        """The reading [batch, head, part] of one call; a part that an example does not have is left out.

        What is said of a whole layer has no head, which is NaN here and null in the store.
        """
        values = reading.values.float().cpu().numpy()
        counts = reading.n_queries.expand(reading.values.shape).cpu().numpy()
        batch, heads, _ = values.shape
        example, head = np.meshgrid(np.arange(first, first + batch), np.arange(heads), indexing="ij")
        for index, part in enumerate(one.parts or ("",)):
            has = ~np.isnan(values[..., index]).all(1) if one.parts else np.ones(batch, dtype=bool)
            named = head if call.heads else np.full(head.shape, np.nan)
            columns = (example, np.full_like(head, call.layer), named, values[..., index], counts[..., index])
            for name, column in zip(NUMBERS, columns, strict=True):
                self.numbers[name].append(column[has].ravel())
            for name, text in zip(NAMES, (one.name, part, call.tower), strict=True):
                self.names[name].append((text, int(has.sum()) * heads))

    def rows(self) -> dict[str, Any]:
        """All value rows as the store's columns."""
        numbers = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in self.numbers.items()}
        return numbers | {name: _repeated(runs) for name, runs in self.names.items()}


@dataclass
class BatchTables:
    """The tables of a chunk, open for the calls of one forward."""

    tables: ChunkTables
    first: int
    lengths: list[int]
    kept: range

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that this forward must yield."""
        wanted = frozenset().union(*(one.needs for one in self.tables.probes))
        return wanted | MAP_FIELDS if self._maps_wanted else wanted

    @property
    def _maps_wanted(self) -> bool:
        return bool(self.kept) and self.tables.with_maps

    def add(self, stats: AttentionStats) -> None:
        """Every probe's reading of one attention call; a module's second call in a forward adds nothing."""
        if stats.call.number > 0:
            return
        for one in self.tables.probes:
            if one.applies(stats):
                self.tables.add_reading(one, stats.call, one.measure(stats), self.first)
                if self.kept and one.per != "example":
                    self._add_positions(one, stats)
        if self._maps_wanted and stats.call.heads:
            self._add_maps(stats)

    def _add_positions(self, one: Probe, stats: AttentionStats) -> None:
        """What each query or key contributed, cut to the example's own length."""
        values = one.positions(stats).float().cpu().numpy()
        for index, example in enumerate(self.kept):
            for number, part in enumerate(one.parts or ("",)):
                lines = values[index, :, : self.lengths[index], number]
                if one.parts and np.isnan(lines).all():
                    continue
                for number_of_head, line in enumerate(lines):
                    head = number_of_head if stats.call.heads else None
                    place = (example, one.name, part, stats.call.tower, stats.layer, head, one.per, line)
                    _append(self.tables.positions, POSITION, place)

    def _add_maps(self, stats: AttentionStats) -> None:
        """The mean- and max-pooled map of each head, cut to the blocks the example has."""
        for kind in ("mean", "max"):
            pooled = stats[f"pooled_{kind}"].float().cpu().numpy()
            for index, example in enumerate(self.kept):
                blocks = -(-self.lengths[index] // BLOCK_SIZE)
                for head, grid in enumerate(pooled[index, :, :blocks, :blocks]):
                    place = (example, stats.call.tower, stats.layer, head, kind, BLOCK_SIZE, *grid.shape, grid.ravel())
                    _append(self.tables.maps, MAP, place)


def _append(columns: Columns, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
    for name, value in zip(names, values, strict=True):
        columns[name].append(value)


def _repeated(runs: list[tuple[str, int]]) -> pd.Categorical:
    """A text column written as (text, how often in a row)."""
    known = list(dict.fromkeys(text for text, _ in runs))
    codes = np.repeat([known.index(text) for text, _ in runs], [count for _, count in runs])
    return pd.Categorical.from_codes(codes.astype(np.int32), categories=known)
