"""From rows to heads: mean, 95 % interval, counts and rank reliability per probe, part, head and stratum.

A stratum is one context length, or one full cell of the conditions the data set declares; no row ever averages over
several declared lengths. Data without a `length` condition is split by the tokens of its examples: one stratum where
all have the same number, else one per doubling (`length=64..127`). NaN values are left out and counted out of `n`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from . import columns
from .intervals import MIN_CLUSTERS, bootstrap_mean, cluster_sums, split_half_reliability, wilson
from .schema import stratum_name

NO_TOKENS = "weights"
"""The one stratum of examples without tokens: what is read of weights alone has no length."""

PLACE = ["part", "tower", "layer", "head"]
"""What names a column of values, beside the probe."""


def summarise(
    header: Mapping[str, Any], examples: pd.DataFrame, rows_of: Callable[[str], pd.DataFrame], *, draws: int = 2000
) -> pd.DataFrame:
    """The heads table of a run from its header, its examples and the rows of each probe."""
    examples = examples.set_index("example")
    strata = list(strata_of(examples, header["data"].get("strata") or ()))
    tables = []
    for probe, card in header["probes"].items():
        rows = rows_of(probe)
        table = _probe_table(probe, rows, examples, strata, card=card, draws=draws) if len(rows) else None
        if table is not None:
            tables.append(table)
    if not tables:
        return columns.frame_of(columns.HEADS.empty_table())
    return pd.concat(tables, ignore_index=True).reindex(columns=columns.HEADS.names)


def strata_of(examples: pd.DataFrame, declared: list[str] | tuple[str, ...]) -> Iterator[tuple[str, pd.Index]]:
    """Every stratum with its examples: each length, then each full cell of the declared strata when there are more."""
    if np.all(examples["tokens"].to_numpy() == 0):
        yield NO_TOKENS, examples.index
        return
    length = _lengths(examples)
    others = [name for name in declared if name != "length" and f"c_{name}" in examples]
    for value in sorted(set(length), key=_order):
        inside = length.index[length == value]
        yield stratum_name(["length"], [value]), inside
        if others:
            cells: dict[tuple[Any, ...], list[Any]] = {}
            conditions = examples.loc[inside, [f"c_{name}" for name in others]].dropna()
            for member, *cell in conditions.itertuples(name=None):
                cells.setdefault(tuple(cell), []).append(member)
            for cell in sorted(cells):
                yield stratum_name(["length", *others], [value, *cell]), pd.Index(cells[cell])


def _lengths(examples: pd.DataFrame) -> pd.Series:
    """The length of each example's stratum: the condition, else its tokens, in doublings where they differ."""
    tokens = examples["tokens"].to_numpy()
    known = examples["c_length"].to_list() if "c_length" in examples else [None]
    if not any(value is None or value != value for value in known):
        return pd.Series(known, index=examples.index)
    if len(set(tokens.tolist())) == 1:
        return pd.Series(tokens, index=examples.index)
    low = 2 ** np.floor(np.log2(np.maximum(tokens, 1))).astype(int)
    return pd.Series([f"{one}..{2 * one - 1}" for one in low], index=examples.index)


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, doublings by their lower end, other texts by spelling."""
    head = str(value).partition("..")[0]
    return (0, float(head), "") if head.replace(".", "", 1).isdigit() else (1, 0.0, str(value))


def _probe_table(
    probe: str,
    rows: pd.DataFrame,
    examples: pd.DataFrame,
    strata: list[tuple[str, pd.Index]],
    *,
    card: Mapping[str, Any],
    draws: int,
) -> pd.DataFrame | None:
    """The rows of one probe: part by part and stratum by stratum, in the order they come."""
    clusters, tables = examples["cluster"].to_numpy(), []
    for columns_of, values, held in _together(grids(rows, examples), card):
        single = columns_of["head"].notna().to_numpy()  # a whole layer has no rank among heads
        binary = bool(columns_of["binary"].iloc[0])
        for order, (stratum, members) in enumerate(strata):
            inside = examples.index.get_indexer(members)
            inside = inside[held[inside]]
            if len(inside):
                sets = columns_of["part_order"].to_numpy()
                table = _summary(values[inside], clusters[inside], single, sets, binary=binary, draws=draws)
                tables.append(columns_of.assign(stratum=stratum, stratum_order=order, **table))
    if not tables:
        return None
    found = pd.concat(tables, ignore_index=True).sort_values(["part_order", "stratum_order"], kind="stable")
    return found.assign(probe=probe).reset_index(drop=True)


MOST = 2048
"""Columns whose means are drawn at once: 2,000 draws of so many take 32 MB."""


def _together(
    found: Iterable[tuple[str, str, pd.DataFrame, np.ndarray, np.ndarray]], card: Mapping[str, Any]
) -> Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]]:
    """Parts that the same examples have, side by side: their columns, the values [example, column], and who has any."""
    groups: dict[tuple[bytes, bool, int], list[tuple[pd.DataFrame, np.ndarray, np.ndarray]]] = {}
    widths: dict[tuple[bytes, bool], int] = {}
    for order, (part, tower, places, values, held) in enumerate(found):
        binary = bool(card.get("binary")) or part in (card.get("binary_parts") or ())
        kind = (held.tobytes(), binary)
        widths[kind] = widths.get(kind, 0) + len(places)
        named = places.assign(part=part, tower=tower, part_order=order, binary=binary)
        groups.setdefault((*kind, widths[kind] // MOST), []).append((named, values, held))
    for members in groups.values():
        names, values, held = zip(*members, strict=True)
        yield pd.concat(names, ignore_index=True), np.concatenate(values, axis=1), held[0]


def grids(
    rows: pd.DataFrame, examples: pd.DataFrame
) -> Iterator[tuple[str, str, pd.DataFrame, np.ndarray, np.ndarray]]:
    """Per part and tower of one probe's rows: the layer and head of each column, the values [example, column], and
    which examples have a row at all; `examples` is indexed by example number."""
    for key, group in rows.groupby(["part", "tower"], observed=True, sort=True):
        part, tower = cast("tuple[str, str]", key)
        codes, places = _places(group)
        at = examples.index.get_indexer(pd.Index(group["example"]))
        values = np.full((len(examples), len(places)), np.nan)
        values[at, codes] = group["value"].to_numpy(np.float64)
        held = np.zeros(len(examples), dtype=bool)
        held[at] = True
        yield part, tower, places, values, held


def _places(group: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """The column number of each row, and the layer and head of each column, in order; null comes first."""
    layer, head = (group[name].fillna(-1).to_numpy(dtype=np.int64) for name in ("layer", "head"))
    _, first, codes = np.unique((layer << 32) + head, return_index=True, return_inverse=True)
    return codes, group[["layer", "head"]].iloc[first].reset_index(drop=True)


def _summary(
    values: np.ndarray, clusters: np.ndarray, single: np.ndarray, sets: np.ndarray, *, binary: bool, draws: int
) -> dict[str, Any]:
    """The numbers of one table from values [example, column], from `mean` to `reliability`.

    Which columns are `single` heads, and which are ranked together (`sets`), [column].
    """
    sums, counts = cluster_sums(values, clusters)
    n, n_examples = (counts > 0).sum(axis=0), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(axis=0) / n_examples
    if binary:
        low, high = _share_interval(mean, n)
    elif len(sums) >= MIN_CLUSTERS:
        low, high = bootstrap_mean(values, clusters, draws=draws)
    else:
        low, high = np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    reliability = np.full(len(mean), np.nan)
    for one in np.unique(sets):
        ranked = (sets == one) & (single if single[sets == one].any() else True)
        if ranked.sum() > 2:
            reliability[sets == one] = split_half_reliability(values[:, ranked], clusters)
    return {
        "mean": mean,
        "ci_low": low,
        "ci_high": high,
        "n": n,
        "n_examples": n_examples.astype(int),
        "reliability": reliability,
    }


def _share_interval(share: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval with clusters as trials: exact where a cluster is one example, cautious where it is several."""
    return wilson(np.where(clusters > 0, np.nan_to_num(share) * clusters, 0.0), clusters)
