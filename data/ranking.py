"""Which heads come first: the highest means of each reading, and the same table rounded for people."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from .heads import head_name

SHOWN = ("probe", "part", "tower", "head", "stratum", "mean", "ci_low", "ci_high", "n", "n_examples", "reliability")
"""Columns of `show`; `head` is written L5H1."""

NUMERIC = ("mean", "n", "reliability")
"""Columns of the readable table that stand under each other to the right."""


def top_heads(heads: pd.DataFrame, top: int) -> pd.DataFrame:
    """The `top` highest means of each probe, part, tower and stratum; undefined heads are left out."""
    ordered = heads.dropna(subset=["mean"]).sort_values("mean", ascending=False, kind="stable")
    keys = ["probe", "part", "tower", "stratum"]
    rank = {key: number for number, key in enumerate(heads[keys].drop_duplicates().itertuples(index=False, name=None))}
    chosen = ordered.groupby(keys, sort=False).head(top)
    groups = [rank[key] for key in chosen[keys].itertuples(index=False, name=None)]
    chosen = chosen.assign(group=groups).sort_values(["group", "mean"], ascending=[True, False], kind="stable")
    places = [_place(layer, head) for layer, head in zip(chosen["layer"], chosen["head"], strict=True)]
    return chosen.assign(head=places).reindex(columns=list(SHOWN)).reset_index(drop=True)


def readable(top: pd.DataFrame) -> pd.DataFrame:
    """Rounded for people, one column for the interval, and no column that says the same nothing everywhere."""
    shown = top.assign(
        mean=top["mean"].map(_number),
        interval=[_interval(low, high) for low, high in zip(top["ci_low"], top["ci_high"], strict=True)],
        reliability=top["reliability"].map(_number),
    )
    columns = ["probe", "part", "tower", "head", "stratum", "mean", "interval", "n", "reliability"]
    dull = {"part": "", "tower": "text"}
    return shown.reindex(columns=[name for name in columns if name not in dull or set(shown[name]) != {dull[name]}])


def records(top: pd.DataFrame) -> list[dict[str, Any]]:
    """One plain dict a row, for JSON; undefined is None."""
    return top.astype(object).where(top.notna(), None).to_dict("records")


def _place(layer: Any, head: Any) -> str:
    """L5H1; L5 for a whole layer, `model` for the whole model."""
    if pd.isna(layer):
        return "model"
    return f"L{layer}" if pd.isna(head) else head_name(layer, head)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:.4g} .. {high:.4g}"
