"""A block of queries against all keys they can see: what every head of it shares (masks, distances, equal tokens)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from . import prepared
from .inputs import AttentionInputs
from .matches import Matches
from .prepared import Prepared
from .stats import BLOCK_SIZE, split_name

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
    made: dict[str, Tensor] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, made for the first head and kept for the others."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @property
    def inputs(self) -> AttentionInputs:
        """The call this block belongs to."""
        return self.whole.inputs

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.inputs.query.device

    @cached_property
    def hidden(self) -> list[tuple[int, int, Tensor]]:
        """[(first, last, bool [batch or 1, query, key])]: key ranges, relative to low, where something is hidden."""
        view = self.inputs.visibility
        first, last = (self.high, self.high) if view.irregular else view.full_range(*self._span)
        ranges = [(self.low, first), (last, self.high)]
        return [
            (a - self.low, b - self.low, ~view.block(self.batches, self.start, self.stop, a, b, self.device))
            for a, b in ranges
            if a < b
        ]

    @cached_property
    def floors(self) -> list[tuple[int, int, Tensor]]:
        """`hidden` as numbers to add to logits, HIDDEN or 0, [batch or 1, 1, 1, query, key]: faster than filling."""
        return [(low, high, hidden[:, None, None].to(self.whole.dtype) * HIDDEN) for low, high, hidden in self.hidden]

    @cached_property
    def seen(self) -> list[tuple[int, int, Tensor]]:
        """`hidden` as numbers to multiply with, 0 or 1, [batch or 1, 1, 1, query, key]."""
        return [(low, high, (~hidden)[:, None, None].to(self.whole.dtype)) for low, high, hidden in self.hidden]

    @property
    def _span(self) -> tuple[int, int, int, int]:
        return self.start, self.stop, self.low, self.high

    @cached_property
    def visible_keys(self) -> Tensor:
        """[batch or 1, query], number of visible keys."""
        count = torch.full((1, self.stop - self.start), self.high - self.low, device=self.device)
        for _, _, hidden in self.hidden:
            count = count - hidden.sum(-1)
        return count

    @cached_property
    def empty(self) -> Tensor | None:
        """bool [batch or 1, query] of queries that see nothing, or None where there are none."""
        if not self.inputs.visibility.may_hide_all(self.start, self.stop, self.inputs.shape[3]):
            return None
        empty = self.visible_keys == 0
        return empty if bool(empty.any()) else None

    @cached_property
    def near(self) -> tuple[int, int]:
        """Keys, relative to low, close enough that distances are summed one by one: no rounding against far keys."""
        position = self.inputs.visibility.offset
        low = max(self.low, min(self.high, self.start + position - self.whole.near))
        high = max(low, min(self.high, self.stop + position + self.whole.near))
        return low - self.low, (self.high if self.inputs.visibility.causal else high) - self.low

    @cached_property
    def near_columns(self) -> dict[str, Tensor]:
        """By name, what each near key counts for, [query, near key]: all terms positive, so nothing cancels."""
        low, high = self.near
        distance = self.offsets(low, high).abs()
        make = {
            "mean_distance": lambda _: distance,
            "mean_square_distance": lambda _: distance.square(),
            "clipped_distance": lambda words: distance.clamp(max=int(words[0])),
            "window_mass": lambda words: (distance < int(words[0])).to(distance.dtype),
        }
        names = {name: split_name(name) for name in self.whole.near_fields}
        return {name: make[base](words) for name, (base, words) in names.items()}

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
        near_low, near_high = self.near
        first = self.start + self.inputs.visibility.offset - self.low
        for side, region, anchor, sign in (
            ("left", slice(0, near_low), first, 1),
            ("right", slice(near_high, self.high - self.low), first + self.stop - self.start - 1, -1),
        ):
            if side in self.whole.columns:
                here = columns[:, self.whole.columns[side]]
                here.zero_()
                keys = torch.arange(region.start, region.stop, device=self.device, dtype=self.whole.dtype)
                gap = sign * (anchor - keys)
                here[..., region] = torch.stack([torch.ones_like(gap), gap, gap.square()])
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
