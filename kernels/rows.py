"""Row statistics: what each tile adds up for its rows, and what the sums amount to once all rows are there.

A tile only sums (unnormalised weights, one pass each); everything that is per row and not per key is done once, for all
rows together. So a statistic is one line of `COLLECT` and one of `CONCLUDE`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .block import Block
from .counts import visible_keys
from .distances import NEAR, concluded
from .prepared import BITS, Prepared, above_peak, normaliser
from .stats import split_name
from .tile import Tile

COLLECT: dict[str, Callable[[Tile, str], Tensor]] = {
    "sum_squares": lambda tile, _: torch.linalg.vector_norm(tile.weights, dim=-1),
    "logit_sum": lambda tile, _: tile.shifted.sum(-1),
    "logit_sum_squares": lambda tile, _: torch.linalg.vector_norm(tile.shifted, dim=-1),
    "entropy": lambda tile, _: tile.information.sum(-1),
    **dict.fromkeys(NEAR, lambda tile, name: tile.block.distances.near(tile, name)),
    "weight_at": lambda tile, name: tile.weight_at(split_name(name)[1][0]),
    "argmax_key": lambda tile, _: tile.argmax_key(),
    "output": lambda tile, _: tile.output(),
    "duplicate_mass": lambda tile, _: tile.block.duplicates.paid(tile),
    "induction_mass": lambda tile, _: tile.block.continuations.paid(tile),
    "duplicate_keys": lambda tile, _: tile.block.duplicates.count[:, None, None],
    "induction_keys": lambda tile, _: tile.block.continuations.count[:, None, None],
}
"""What a tile sums for each statistic, by (tile, name), in this order: `entropy` overwrites the shifted logits."""
WHOLE_NUMBERS = ("argmax_key", "duplicate_keys", "induction_keys")


class Rows:
    """The sums of all rows, [batch, kv_head, repeat, query] and maybe [..., column]."""

    def __init__(self, whole: Prepared) -> None:
        self.whole = whole
        tails: dict[str, tuple[int, ...]] = {}
        if whole.linear is not None:
            tails["linear"] = (max(columns.stop for columns in whole.columns.values()),)
        if whole.value is not None:
            tails["output"] = (whole.value.shape[-1],)
        asked = [name for base in COLLECT for name in sorted(whole.needs) if split_name(name)[0] == base]
        self.sums = {
            name: whole.new_zeros(
                *whole.query.shape[:4], *tails.get(name, ()), dtype=torch.long if name in WHOLE_NUMBERS else None
            )
            for name in ("peak", "total", *asked, *(["linear"] if "linear" in tails else []))
        }
        self.ruled = None if whole.inputs.visibility.rule is None else torch.zeros_like(whole.inputs.labels("query"))

    def enter(self, block: Block) -> None:
        """What a block knows of its queries, whatever the head."""
        if self.ruled is not None:
            self.ruled[block.batches, block.start : block.stop] = block.edges[0][2].sum(-1)  # a rule may hide any key

    def collect(self, tile: Tile) -> None:
        """Put the sums of one tile where they belong."""
        for name, sums in self.sums.items():
            if name in tile.sums:
                sums[tile.place] = tile.sums[name]
            elif name == "linear":
                sums[tile.place] = tile.linear()[..., : sums.shape[-1]]
            else:
                sums[tile.place] = COLLECT[split_name(name)[0]](tile, name)

    def field(self, name: str) -> Tensor:
        """One statistic of all rows, [batch, head, query, ...]."""
        base, arguments = split_name(name)
        return CONCLUDE[base](self, name, arguments).flatten(1, 2)

    @cached_property
    def filled(self) -> Tensor:
        """bool, True for a row that sees a key."""
        return self.sums["total"] > 0

    @cached_property
    def above(self) -> Tensor:
        """logsumexp - max logit in bits, a learned sink logit included; 0 in an empty row."""
        return torch.where(self.filled, above_peak(self.sums["peak"], self.sums["total"], self.whole.sink), 0.0)

    def centred_logsumexp(self) -> Tensor:
        """logsumexp in nats of centred keys, [batch, head, query]; -inf in an empty row."""
        return torch.where(self.filled, (self.sums["peak"] + self.above) / BITS, -torch.inf).flatten(1, 2)

    @cached_property
    def norm(self) -> Tensor:
        """What turns weights into probabilities; 0 in an empty row."""
        return normaliser(self.sums["peak"], self.sums["total"], self.whole.sink)

    def normalised(self, name: str) -> Tensor:
        """A sum of weights as one of probabilities."""
        return self.sums[name] * self.norm

    def visible_keys(self) -> Tensor:
        """int64 [batch, kv_head, repeat, query]."""
        seen = visible_keys(self.whole.inputs) if self.ruled is None else self.ruled
        return seen[:, None, None].expand(self.sums["total"].shape)

    def in_nats(self, bits: Tensor) -> Tensor:
        """Logits in bits, of centred keys, as the model has them in nats; -inf in an empty row."""
        return torch.where(self.filled, bits / BITS + self.whole.common, -torch.inf)

    def entropy(self) -> Tensor:
        """-sum p ln p = (logsumexp - peak) mass - sum p (z - peak)."""
        return (self.above * self.normalised("total") - self.normalised("entropy")) / BITS

    def by_group(self, name: str) -> Tensor:
        """Columns of the labels that occur, spread over all groups."""
        values = self.sums["linear"][..., self.whole.columns[name]] * self.norm[..., None]
        return spread(values, self.whole.key_labels, self.whole.inputs.group_count)


CONCLUDE: dict[str, Callable[[Rows, str, tuple[str, ...]], Tensor]] = {
    "visible_keys": lambda rows, *_: rows.visible_keys(),
    "logsumexp": lambda rows, *_: rows.in_nats(rows.sums["peak"] + rows.above),
    "max_logit": lambda rows, *_: rows.in_nats(rows.sums["peak"]),
    "max_weight": lambda rows, *_: rows.norm,  # the largest is 2^0 before it is normalised
    "row_mass": lambda rows, *_: rows.normalised("total"),
    "entropy": lambda rows, *_: rows.entropy(),
    "sum_squares": lambda rows, name, _: rows.normalised(name).square(),
    "logit_sum": lambda rows, name, _: rows.sums[name] / BITS,
    "logit_sum_squares": lambda rows, name, _: (rows.sums[name] / BITS).square(),
    **dict.fromkeys(NEAR, concluded),
    "weight_at": lambda rows, name, _: rows.normalised(name),
    "duplicate_mass": lambda rows, name, _: rows.normalised(name),
    "induction_mass": lambda rows, name, _: rows.normalised(name),
    "argmax_key": lambda rows, name, _: rows.sums[name] * rows.filled,
    "duplicate_keys": lambda rows, name, _: rows.sums[name],
    "induction_keys": lambda rows, name, _: rows.sums[name],
    "group_mass": lambda rows, name, _: rows.by_group(name),
    "value_weighted_mass": lambda rows, name, _: rows.by_group(name),
    "output": lambda rows, name, _: rows.sums[name] * rows.norm[..., None],
}
"""How each row statistic follows from the sums."""


def spread(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """values [..., label that occurs] as [..., group], 0 for the others."""
    if len(labels) == count:
        return values.contiguous()
    return values.new_zeros(*values.shape[:-1], count).index_copy_(-1, labels, values)
