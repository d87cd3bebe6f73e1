"""What an attention call is made of: queries, keys, the scale and every rule that shapes its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]
"""rule(batch, query, key) -> bool: may this query see this key? Index tensors that broadcast, as does the answer."""


@dataclass(frozen=True)
class Visibility:
    """Which keys each query may see: a band of offsets, real keys, and any further rule evaluated a block at a time.

    Key j is visible to query i iff -after <= (i + offset) - j <= before, key_mask[j], and rule(batch, i, j).
    """

    before: int | None = None
    """How far back a query sees; a sliding window of w keys is before = w - 1. None: without limit."""
    after: int | None = None
    """How far ahead a query sees; causal attention is after = 0. None: without limit."""
    offset: int = 0
    """Position of query 0 among the keys (a cache holds `offset` earlier keys)."""
    key_mask: Tensor | None = None
    """[batch, key], True = a real key."""
    query_mask: Tensor | None = None
    """[batch, query], True = a real query: only those count in the key and block statistics."""
    rule: Rule | None = None

    @property
    def causal(self) -> bool:
        """Whether no query sees a later key."""
        return self.after == 0

    def key_range(self, start: int, stop: int, key_count: int) -> tuple[int, int]:
        """Smallest range of keys that holds all that queries start..stop-1 can see."""
        low = 0 if self.before is None else max(0, start + self.offset - self.before)
        high = key_count if self.after is None else min(key_count, stop + self.offset + self.after)
        return min(low, key_count), max(high, 0)

    def full_range(self, start: int, stop: int, low: int, high: int) -> tuple[int, int]:
        """The keys inside low..high that the band shows to every query start..stop-1."""
        first = low if self.before is None else max(low, stop - 1 + self.offset - self.before)
        last = high if self.after is None else min(high, start + self.offset + self.after + 1)
        return (first, last) if first < last else (high, high)

    def shows(self, batch: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """bool: does query i of an example see key j? Indices that broadcast; from -1, and at -1, nothing is seen."""
        seen = (query >= 0) & (key >= 0)
        if self.before is not None:
            seen = seen & (key >= query + (self.offset - self.before))
        if self.after is not None:
            seen = seen & (key <= query + (self.offset + self.after))
        if self.key_mask is not None:
            seen = seen & self.key_mask[batch, key.clamp(min=0)]
        if self.rule is not None:
            seen = seen & self.rule(batch, query.clamp(min=0), key.clamp(min=0))
        return seen

    @property
    def irregular(self) -> bool:
        """Whether more than the band decides, so that every block needs its mask."""
        return self.key_mask is not None or self.rule is not None


@dataclass(frozen=True)
class AttentionInputs:
    """One attention call, as the model made it, with the labels its statistics need.

    Grouped-query attention leaves keys and values unrepeated: head h reads kv_head h // (head // kv_head).
    """

    query: Tensor
    """[batch, head, query, d_head], after rotation and normalisation."""
    key: Tensor
    """[batch, kv_head, key, d_head]."""
    value: Tensor | None = None
    """[batch, kv_head, key, d_value]; needed for `output` and `value_weighted_mass` alone."""
    scale: float = 1.0
    visibility: Visibility = field(default_factory=lambda: Visibility(after=0))
    softcap: float | None = None
    """z = softcap tanh(scale q.k / softcap)."""
    sink_logits: Tensor | None = None
    """[head], a logit that takes part in the softmax and belongs to no key."""
    bias: Tensor | None = None
    """[batch or 1, head or 1, query, key], added after the cap."""
    key_groups: Tensor | None = None
    """int8 [batch, key], group label of each key."""
    query_groups: Tensor | None = None
    """int8 [batch, query]."""
    group_count: int = 1
    query_tokens: Tensor | None = None
    """[batch, query], for the token-equality masses."""
    key_tokens: Tensor | None = None
    """[batch, key]; a negative id equals nothing."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """name -> [batch, query], one key index per query for `weight_at:name`; negative = none."""

    def __post_init__(self) -> None:
        batch, heads, _, width = self.query.shape
        if self.key.shape[0] != batch or self.key.shape[3] != width or heads % self.key.shape[1]:
            raise ValueError(
                "attention inputs: expected key [batch, kv_head, key, d_head] with the query's batch and d_head and a "
                f"kv_head that divides head; query is {list(self.query.shape)}, key is {list(self.key.shape)}"
            )

    def capped(self, logits: Tensor) -> Tensor:
        """softcap tanh(logits / softcap); the logits themselves in a call without a cap."""
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, head, query, key)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.key.shape[2]

    @property
    def repeats(self) -> int:
        """Query heads per key-value head."""
        return self.query.shape[1] // self.key.shape[1]

    def labels(self, of: str) -> Tensor:
        """int64 group labels [batch, key] or [batch, query]; all 0 where none were given."""
        given = self.key_groups if of == "key" else self.query_groups
        batch, _, queries, keys = self.shape
        if given is None:
            return torch.zeros(batch, keys if of == "key" else queries, dtype=torch.long, device=self.query.device)
        return given.long()

    def real_queries(self) -> Tensor:
        """bool [batch, query], True = a query that counts."""
        if self.visibility.query_mask is not None:
            return self.visibility.query_mask
        batch, _, queries, _ = self.shape
        return torch.ones(batch, queries, dtype=torch.bool, device=self.query.device)
