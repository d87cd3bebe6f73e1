"""A cache policy: which KV heads keep their whole cache, and which keep the first and the last tokens alone.

    share of the cache kept at n tokens = sum over KV heads of (n if full else min(n, sinks + recent)) / (n x KV heads)

A KV head is kept full for the query head that needs it most, so readings are folded by max, example by example, as in
`kv.py`; by min where a high value says that the cache may go (`lowest`). Of a share s the heads at or above the
quantile 1 - s are full, ties broken at random with a fixed seed, as in DuoAttention's released code. Sources: Xiao et
al., "DuoAttention", section 2.3; Xiao et al., "Efficient Streaming Language Models with Attention Sinks".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, comb
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .agreement import find_values
from .errors import UserError
from .heads import head_name
from .kv import query_heads_each
from .store import open_store

if TYPE_CHECKING:
    from .store import Store

SINKS, RECENT = 4, 16
"""Tokens that a streaming head keeps, by default: the cache of `streaming_recall/4+16`."""


@dataclass(frozen=True)
class Policy:
    """Full or sinks + window, for each KV head.

    >>> half = Policy("a model", ((True, False), (False, True)), sinks=4, recent=16)
    >>> half.count, half.share, half.cache(100)
    (2, 0.5, 0.6)
    """

    model: str
    """Its name; empty where a file does not say."""
    full: tuple[tuple[bool, ...], ...]
    """[layer][kv_head], True where the whole cache is kept."""
    sinks: int = SINKS
    recent: int = RECENT
    source: str = ""
    """The reading or the file that it is made from."""
    rule: str = ""
    """How heads were chosen by that."""

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.full}
        if len(widths) != 1 or widths == {0}:
            raise UserError(f"expected layers of as many KV heads each; came layers of {sorted(widths) or 'none'}")
        if self.sinks < 0 or self.recent < 1:
            raise UserError(f"expected sinks of 0 or more and recent of 1 or more; came {self.sinks} and {self.recent}")

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, KV heads of each."""
        return len(self.full), len(self.full[0])

    @property
    def heads(self) -> int:
        """KV heads in all."""
        return len(self.full) * len(self.full[0])

    @property
    def count(self) -> int:
        """KV heads that are full."""
        return sum(map(sum, self.full))

    @property
    def share(self) -> float:
        """Share of the KV heads that are full."""
        return self.count / self.heads

    def cache(self, tokens: int) -> float:
        """Share of the keys and values kept after `tokens` tokens."""
        if tokens < 1:
            raise UserError(f"expected a context of 1 token or more; came {tokens}")
        short = min(tokens, self.sinks + self.recent)
        return (self.count * tokens + (self.heads - self.count) * short) / (tokens * self.heads)

    def streaming(self, layer: int) -> list[int]:
        """The KV heads of a layer that keep sinks and recent tokens alone."""
        return [head for head, full in enumerate(self.full[layer]) if not full]


def policy(
    reading: str,
    *,
    store: str | Path = "runs",
    full: float | None = None,
    threshold: float | None = None,
    lowest: bool = False,
    sinks: int = SINKS,
    recent: int = RECENT,
) -> Policy:
    """The policy of a stored reading RUN:PROBE/PART@STRATUM: a share `full` of the KV heads, or those at `threshold`.

    The highest are full, or, with `lowest`, the lowest: for readings in which a high value says that the cache may go.
    """
    if (full is None) == (threshold is None):
        raise UserError("expected either a share of KV heads to keep full (--full 0.25) or a value (--threshold 0.5)")
    if full is not None:
        check_share(full)
    name, model, needs = _needs(open_store(store), reading, lowest=lowest)
    if threshold is None:
        assert full is not None
        chosen = highest(needs, full)
    else:
        chosen = needs.astype(np.float32) >= np.float32(-threshold if lowest else threshold)  # as values are stored
    end, fold = ("lowest", "min") if lowest else ("highest", "max")
    which = (
        f"the {end} {chosen.sum()}" if threshold is None else f"at {threshold:g} or {'below' if lowest else 'above'}"
    )
    rule = f"{which} of {chosen.size} KV heads ({fold} over their query heads)"
    return Policy(model, rows_of(chosen), sinks, recent, name, rule)


def highest(values: np.ndarray, share: float) -> np.ndarray:
    """bool, True at the values at or above the quantile 1 - share; none of them for 0, all for 1.

    >>> highest(np.array([[0.1, 0.9], [0.4, 0.5]]), 0.5).tolist()
    [[False, True], [False, True]]
    """
    check_share(share)
    flat = values.ravel()
    below = ceil((1 - share) * (flat.size - 1) - 1e-9)
    count = 0 if share == 0 else flat.size - below
    order = np.lexsort((np.random.default_rng(0).random(flat.size), -flat))
    chosen = np.zeros(flat.size, dtype=bool)
    chosen[order[:count]] = True
    return chosen.reshape(values.shape)


def check_share(share: float) -> None:
    """Refuse what is no share."""
    if not 0 <= share <= 1:
        raise UserError(f"expected a share of KV heads from 0 to 1; came {share:g}")


def random_policies(of: Policy, count: int, seed: int) -> list[Policy]:
    """Other policies with as many full KV heads, drawn from all KV heads; fewer where there are not so many."""
    random = np.random.default_rng(seed)
    found: dict[tuple[tuple[bool, ...], ...], Policy] = {}
    while len(found) < min(count, comb(of.heads, of.count) - 1):
        chosen = np.zeros(of.heads, dtype=bool)
        chosen[random.choice(of.heads, size=of.count, replace=False)] = True
        rows = rows_of(chosen.reshape(of.shape))
        if rows != of.full:
            found[rows] = replace(of, full=rows, source="", rule=f"{of.count} of {of.heads} KV heads at random")
    return list(found.values())


def rows_of(full: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    """bool [layer, kv_head] as a policy holds it."""
    return tuple(tuple(bool(one) for one in row) for row in full)


def _needs(store: Store, reading: str, *, lowest: bool) -> tuple[str, str, np.ndarray]:
    """(the reading's full name, the model's, [layer, kv_head] how much each needs its cache)."""
    found = find_values(store, reading)
    run = store.run(found.prompts[0])
    each, model = query_heads_each(run), run.header["model"]
    layers, shared = int(model["layers"]), int(model["kv_heads"])
    values = np.full((len(found.values), layers, shared, each), np.nan)
    for column, (layer, head) in enumerate(found.places):
        values[:, layer, head // each, head % each] = -found.values[:, column] if lowest else found.values[:, column]
    folded = np.fmax.reduce(values, axis=-1)
    known = ~np.isnan(folded)
    counts = known.sum(0)
    if not counts.all():
        undefined = [head_name(int(layer), int(head)) for layer, head in np.argwhere(counts == 0)]
        raise UserError(
            f"{found.name} has no value for {len(undefined)} of {layers * shared} KV heads ({', '.join(undefined[:4])}"
            f"{', ...' if len(undefined) > 4 else ''}), so it can't decide on their cache; use another reading"
        )
    return found.name, str(model["name"]), np.where(known, folded, 0.0).sum(0) / counts
