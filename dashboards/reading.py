"""A reading: one probe of one run, in one part, stratum and tower, as a table with a row per head and its rank.

Rank 1 is the highest value; ties share the better rank. The percentile is the share of defined heads below a head plus
half of those equal to it, so the middle head stands at 50. Heads where the probe is undefined have neither. Where a
baseline is subtracted the value is the difference, and rank 1 is the largest of either sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ..data.baselines import KINDS
from ..data.heads import parse_head

Frame: TypeAlias = Any
"""A pandas DataFrame, or a selection of one; pandas' own annotations cannot tell which a selection gives."""


@dataclass(frozen=True)
class Reading:
    """One value per head, with what is needed to draw and to explain it."""

    probe: str
    part: str
    stratum: str
    tower: str
    card: Mapping[str, Any]
    layers: int
    heads: int
    kv_heads: int
    table: Frame
    """layer, head, name, value, low, high, n, rank, percentile, reliability; in order of layer and head. Where a
    baseline is subtracted mean, baseline, effect and q stand in place of reliability."""
    minus: str = ""
    """The baseline that is subtracted: random, shuffled or none."""
    of_layers: bool = False
    """Each value is of a whole layer, named L5; `heads` is still the model's."""

    @property
    def title(self) -> str:
        """The short title, and what is subtracted."""
        return f"{self.short_title} − {KINDS[self.minus]}" if self.minus else self.short_title

    @property
    def short_title(self) -> str:
        """The card's title, with the part where the probe has several."""
        title = str(self.card.get("title") or self.probe)
        return f"{title} · {self.part}" if self.part else title

    @property
    def unit(self) -> str:
        """The card's unit, empty where it has none."""
        return str(self.card.get("unit") or "")

    @property
    def sharing(self) -> int:
        """Query heads that share one key-value head; 1 where each has its own."""
        return self.heads // self.kv_heads if 0 < self.kv_heads < self.heads else 1

    @cached_property
    def ranked(self) -> int:
        """How many heads have a value, the N of `rank k of N`."""
        return int(self.table["value"].notna().sum())

    @property
    def of_weights(self) -> bool:
        """Whether the values are read of the weights alone: one of each head, without an interval."""
        return self.card.get("per") == "weights"

    @property
    def signed(self) -> bool:
        """Whether the values live on both sides of a meaningful zero, as every difference does."""
        low, high = self.bounds
        both = (low is None or low < 0) and (high is None or high > 0) and "bounds" in self.card
        return bool(self.minus) or both

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The lowest and highest value there can be; a difference reaches as far both ways as the probe is wide."""
        low, high = bounds(self.card)
        if not self.minus:
            return low, high
        return (None, None) if low is None or high is None else (low - high, high - low)

    def grid(self, column: str) -> np.ndarray:
        """A column of the table as a [layer, head] matrix, NaN where there is no row."""
        matrix = np.full((self.layers, self.heads), np.nan)
        matrix[self.table["layer"], self.table["head"]] = self.table[column].to_numpy(float)
        return matrix

    def top(self, count: int) -> Frame:
        """The rows of the first `count` heads by rank, the first one first."""
        return self.table.dropna(subset=["value"]).sort_values(["rank", "layer", "head"]).head(count)


def row_in(reading: Reading, name: str) -> Frame:
    """The head's row in a reading, None where it was not measured."""
    layer, head = parse_head(name)
    at = np.flatnonzero((reading.table["layer"].to_numpy() == layer) & (reading.table["head"].to_numpy() == head))
    return reading.table.iloc[at[0]] if at.size else None


def standing(reading: Reading, name: str) -> tuple[int, float]:
    """How much a head stands out, for sorting: tenths of the way to an end of the ranking, then distance in MADs.

    A percentile alone would put the lowest of many equal heads level with the one head that does something.
    """
    row = row_in(reading, name)
    if row is None or not np.isfinite(row["value"]):
        return -1, 0.0
    value = reading.table["value"].dropna()
    middle = float(value.median())
    spread = float((value - middle).abs().median()) or float(value.std()) or 1.0
    return round(abs(row["percentile"] - 50) / 10), abs(row["value"] - middle) / spread


def by_standing(readings: list[Reading], name: str) -> list[Reading]:
    """Readings with the one in which this head stands out most first, undefined ones last."""
    return sorted(readings, key=lambda reading: (*(-x for x in standing(reading, name)), reading.title))


def bounds(card: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The lowest and highest value a probe can take; None where it is open."""
    low, high = (*(card.get("bounds") or (None, None)), None, None)[:2]
    return (None if low is None else float(low)), (None if high is None else float(high))


def add_ranks(table: Frame, *, by_size: bool = False) -> Frame:
    """The table with `rank` (1 = highest) and `percentile` columns over its defined values, or over their sizes."""
    value = table["value"].abs() if by_size else table["value"]
    count = max(int(value.notna().sum()), 1)
    return table.assign(
        rank=value.rank(ascending=False, method="min"),
        percentile=100 * (value.rank(method="average") - 0.5) / count,
    )
