"""Readings per KV head: the query heads that share keys and values, as one.

What may leave a cache is decided for KV heads, and a KV head is needed if any of its query heads needs it: the `max`.
Rows are folded example by example, so intervals are those of the folded values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .errors import StoreError
from .summary import summarise

if TYPE_CHECKING:
    from .run import Run

TOGETHER = ("max", "mean")
PLACE = ["example", "probe", "part", "tower", "layer", "head"]


def kv_heads(run: Run, probe: str | None = None, *, together: str = "max") -> pd.DataFrame:
    """The heads table of a run with a row per KV head in place of each query head; `head` counts KV heads.

    `together` says how the query heads of one KV head become one value: their `max` or their `mean`.
    """
    if together not in TOGETHER:
        raise StoreError(f"expected query heads together by {' or '.join(TOGETHER)}; came {together!r}")
    run.check_probe(probe)
    header, each = run.header, query_heads_each(run)
    chosen = {probe: header["probes"][probe]} if probe else header["probes"]

    def folded(name: str) -> pd.DataFrame:
        rows = run.rows(name)
        rows = rows[(rows["tower"] == "text") & rows["head"].notna()]
        places = rows.assign(head=rows["head"] // each).groupby(PLACE, observed=True, sort=False)
        return places.agg(value=("value", together), n_queries=("n_queries", "max")).reset_index()

    found = summarise({**header, "probes": chosen}, run.examples(), folded)
    if probe and not len(found):
        raise StoreError(f"run {run.id}: {probe} has no values of heads, so none of KV heads; leave --kv-heads out")
    return found


def query_heads_each(run: Run) -> int:
    """How many query heads share each KV head of a run's model."""
    heads, shared = run.header["model"].get("heads"), run.header["model"].get("kv_heads")
    if not heads or not shared or heads % shared:
        raise StoreError(f"run {run.id}: its model has {heads} heads and {shared} KV heads; they can't be folded")
    return heads // shared
