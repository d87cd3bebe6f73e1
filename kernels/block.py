"""A block of queries against all keys they can see: what every head of it shares (masks, distances, equal tokens)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from . import prepared
from .distances import Distances
from .inputs import AttentionInputs
from .matches import Matches
from .prepared import Prepared
from .stats import BLOCK_SIZE

HIDDEN = -1e30
"""A masked logit: finite, so that weight * logit is 0 and not NaN."""


def blocks_of(whole: Prepared) -> Iterator[Block]:
    """All blocks of queries, a few batch elements at a time where the maps are small."""
    batch, heads, queries, keys = whole.inputs.shape
    rows = min(whole.row_block(), queries)
    together = max(1, min(batch, prepared.TILE_ELEMENTS // max(1, heads * rows * keys)))
    for first in range(0, batch, together):
        batches = slice(first, min(batch, first + together))
        for start in range(0, queries, rows):
            low, high = whole.inputs.visibility.key_range(start, min(queries, start + rows), keys)
            if low < high:
                yield Block(whole, batches, start, min(queries, start + rows), low - low % BLOCK_SIZE, high)


@dataclass
class Block:
    """Queries start..stop-1 of a few batch elements against keys low..high-1: everything that heads share."""

    whole: Prepared
    batches: slice
    start: int
    stop: int
    low: int
    high: int

    @property
    def inputs(self) -> AttentionInputs:
        """The call this block belongs to."""
        return self.whole.inputs

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.inputs.query.device

    @cached_property
    def edges(self) -> list[tuple[int, int, Tensor]]:
        """[(first, last, bool [batch or 1, query, key])]: key ranges, relative to low, where not every key is shown."""
        view, size = self.inputs.visibility, self.high - self.low
        first, last = view.full_range(self.start, self.stop, self.low, self.high)
        ranges = [(0, size)] if view.irregular else [(0, first - self.low), (last - self.low, size)]
        batch, query, key = (
            torch.arange(start, stop, device=self.device)
            for start, stop in ((self.batches.start, self.batches.stop), (self.start, self.stop), (self.low, self.high))
        )
        batch, query = batch[:, None, None], query[None, :, None]
        return [(low, high, view.shows(batch, query, key[low:high])) for low, high in ranges if low < high]

    @cached_property
    def floors(self) -> list[tuple[int, int, Tensor]]:
        """`edges` as numbers to add to logits, HIDDEN or 0, [batch or 1, 1, 1, query, key]: faster than filling."""
        return [(low, high, (~shown)[:, None, None].to(self.whole.dtype) * HIDDEN) for low, high, shown in self.edges]

    @cached_property
    def seen(self) -> list[tuple[int, int, Tensor]]:
        """`edges` as numbers to multiply with, 0 or 1, [batch or 1, 1, 1, query, key]."""
        return [(low, high, shown[:, None, None].to(self.whole.dtype)) for low, high, shown in self.edges]

    @cached_property
    def distances(self) -> Distances:
        """How far each key is from each query."""
        return Distances(self)

    @cached_property
    def positions(self) -> tuple[Tensor, Tensor]:
        """(of the queries, of the keys), both as keys are counted."""
        options = {"device": self.device, "dtype": self.whole.dtype}
        query = torch.arange(self.start, self.stop, **options) + self.inputs.visibility.offset
        return query, torch.arange(self.low, self.high, **options)

    def offsets(self, low: int, high: int) -> Tensor:
        """i - j for keys low..high-1 (relative to self.low), [query, key]."""
        query, key = self.positions
        return query[:, None] - key[low:high]

    @cached_property
    def linear(self) -> Tensor:
        """[batch, column, key] with the far columns of this block written in."""
        assert self.whole.linear is not None
        columns = self.whole.linear[self.batches, :, self.low : self.high]
        self.distances.write_far(self, columns)
        return columns

    @cached_property
    def real(self) -> Tensor:
        """[batch, query], 1 for queries that count."""
        return self.inputs.real_queries()[self.batches, self.start : self.stop].to(self.whole.dtype)

    @cached_property
    def label_rows(self) -> Tensor:
        """Rows [batch, row, query] whose product with the weights is summed by key: one a label, or one in all."""
        if "received_by_group" not in self.whole.needs:
            return torch.ones_like(self.real)[:, None]
        labels = self.inputs.labels("query")[self.batches, self.start : self.stop]
        return (labels[..., None] == self.whole.query_labels).to(self.whole.dtype).mT

    def target(self, name: str) -> tuple[Tensor, Tensor]:
        """(index, inside) of one key per query, both [batch, 1, 1, query(, 1)]; outside the block counts as none."""
        given = self.inputs.targets[name][self.batches, self.start : self.stop] - self.low
        inside = (given >= 0) & (given < self.high - self.low)
        return given.clamp(0, self.high - self.low - 1)[:, None, None, :, None], inside[:, None, None]

    @cached_property
    def duplicates(self) -> Matches:
        """Keys with the query's own token."""
        return Matches(self, shift=0)

    @cached_property
    def continuations(self) -> Matches:
        """Keys right behind the query's own token."""
        return Matches(self, shift=1)
