"""Which heads come first: the highest means of each reading, or the largest effects against a baseline; for people, the
same tables rounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from .heads import head_name

SHOWN = ("probe", "part", "tower", "head", "stratum", "mean", "ci_low", "ci_high", "n", "n_examples", "reliability")
"""Columns of `show`; `head` is written L5H1."""

COMPARED = (
    *("probe", "part", "tower", "head", "stratum"),
    *("mean", "baseline", "difference", "ci_low", "ci_high", "n", "effect", "q"),
)
"""Columns of `show --against`."""

NUMERIC = ("mean", "baseline", "difference", "n", "reliability", "effect", "q")
"""Columns of the readable tables that stand under each other to the right."""

KEYS = ["probe", "part", "tower", "stratum"]
"""What the heads of one ranking have in common."""


def top_heads(heads: pd.DataFrame, top: int, *, kv: bool = False) -> pd.DataFrame:
    """The `top` highest means of each probe, part, tower and stratum; undefined heads are left out (`kv`: KV heads)."""
    ordered = heads.dropna(subset=["mean"]).sort_values("mean", ascending=False, kind="stable")
    return _first_of_each(ordered, heads, top, kv=kv).reindex(columns=list(SHOWN))


def top_effects(compared: pd.DataFrame, top: int) -> pd.DataFrame:
    """The `top` largest effects, of either sign, of each probe, part, tower and stratum; by difference where there is
    no effect. Heads without a difference are left out."""
    known = compared.dropna(subset=["difference"])
    size = known.assign(size=known["effect"].abs(), by=known["difference"].abs())
    ordered = size.sort_values(["size", "by"], ascending=False, na_position="last", kind="stable")
    return _first_of_each(ordered, compared, top).reindex(columns=list(COMPARED))


def _first_of_each(ordered: pd.DataFrame, heads: pd.DataFrame, top: int, *, kv: bool = False) -> pd.DataFrame:
    """The first `top` rows of each ranking, the rankings in the order of `heads`, with `head` written L5H1."""
    rank = {key: number for number, key in enumerate(heads[KEYS].drop_duplicates().itertuples(index=False, name=None))}
    chosen = ordered.groupby(KEYS, sort=False).head(top)
    groups = np.array([rank[key] for key in chosen[KEYS].itertuples(index=False, name=None)], dtype=int)
    chosen = chosen.iloc[np.argsort(groups, kind="stable")]
    places = [_place(layer, head, kv) for layer, head in zip(chosen["layer"], chosen["head"], strict=True)]
    return chosen.assign(head=places).reset_index(drop=True)


def readable(top: pd.DataFrame) -> pd.DataFrame:
    """Rounded for people, one column for the interval, and no column that says the same nothing everywhere."""
    shown = _rounded(top, ("mean", "reliability"))
    return _without_dull(shown, ["probe", "part", "tower", "head", "stratum", "mean", "interval", "n", "reliability"])


def in_lines(top: pd.DataFrame) -> pd.DataFrame:
    """A line a ranking: its highest heads with their means."""
    named = top.assign(highest=[f"{head} {_number(mean)}" for head, mean in zip(top["head"], top["mean"], strict=True)])
    lines = named.groupby(KEYS, sort=False, observed=True, as_index=False).agg({"highest": ", ".join, "n": "min"})
    return _without_dull(lines, [*KEYS, "highest", "n"])


def readable_against(top: pd.DataFrame) -> pd.DataFrame:
    """The same for a comparison: the interval is that of the difference."""
    shown = _rounded(top, ("mean", "baseline", "difference", "effect", "q"))
    names = ["probe", "part", "tower", "head", "stratum", "mean", "baseline", "difference", "interval", "n"]
    return _without_dull(shown, [*names, "effect", "q"])


def _rounded(top: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    interval = [_interval(low, high) for low, high in zip(top["ci_low"], top["ci_high"], strict=True)]
    return top.assign(interval=interval, **{name: top[name].map(_number) for name in names})


def _without_dull(shown: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    dull = {"part": "", "tower": "text"}
    return shown.reindex(columns=[name for name in names if name not in dull or set(shown[name]) != {dull[name]}])


def records(top: pd.DataFrame) -> list[dict[str, Any]]:
    """One plain dict a row, for JSON; undefined is None."""
    return top.astype(object).where(top.notna(), None).to_dict("records")


def _place(layer: Any, head: Any, kv: bool) -> str:
    """L5H1; L5 for a whole layer, `model` for the whole model."""
    if pd.isna(layer):
        return "model"
    return head_name(layer, None if pd.isna(head) else head, kv=kv)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.4g} .. {high:.4g}"
