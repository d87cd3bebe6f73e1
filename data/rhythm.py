"""The rhythm of attention over a text: where local heads look back, and which tokens global heads come back to.

Heads of all layers are ordered by their mean distance d. Local heads are the lowest 30 %, global ones the highest 30 %:

    WAAD_t   mean over local heads of sum_s p_ts min(t - s, 10)      peaks: a new phrase is planned
    FAI_s    mean over global heads of mean_t p_ts, 10 <= t - s <= 100    peaks: anchors that later tokens read
    step_t   |WAAD_t - WAAD_t+1|; a preplan token is in its top 40 %, an anchor in the top 40 % of FAI

A peak is a local maximum above the mean + 0.5 standard deviations of the 33 tokens around it (the paper does not say):
WAAD grows and FAI falls over a text, so peaks above the mean of the whole would lie at opposite ends of it. Chance is
what the same marks give when one series is shifted by 8 to 24 tokens, for the same reason. A first-token sink has the
largest distance there is, so "global" may mean sink heads alone: with `without_first` distances are those of the
weights on all other keys, renormalised, and the first token is no anchor. Both series are linear in the maps, so they
are averages of what the probes keep token by token. Source: "Attention Illuminates LLM Reasoning: The
Preplan-and-Anchor Rhythm", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .errors import UserError
from .heads import head_name
from .intervals import MIN_CLUSTERS, bootstrap_mean
from .run import Run

SHARE = 0.3
"""Of the heads, for each set."""
TOP = 0.4
"""Of the tokens, for preplan tokens and anchors."""
WIDTH = 10
"""Where the distances of WAAD are cut off."""
PEAK, AROUND = 0.5, 16
"""A peak is so many standard deviations above the mean of so many tokens before and behind it, and itself."""
SHIFTS = (8, 24)
"""Tokens by which one series is shifted against the other, both ways, for what chance gives."""
REACH = 3
"""Tokens in which one thing follows another."""
PROBES = ("mean_distance", "windowed_distance", "future_attention", "first_token_mass")
FULL = 1e-4
"""Weight that must be left beside the first token for the rest to be renormalised."""


@dataclass(frozen=True)
class Rhythm:
    """The two sets of heads, the series token by token, and how they go together."""

    local_heads: list[str]
    global_heads: list[str]
    tokens: pd.DataFrame
    """example, position, waad, fai, step, preplan, anchor, waad_peak, fai_peak."""
    statistics: pd.DataFrame
    """statistic, value, expected, difference, ci_low, ci_high, n (examples)."""


def rhythm(run: Run, *, without_first: bool = False) -> Rhythm:
    """The rhythm of the examples that a run keeps token by token (`--keep-positions`)."""
    series = {probe: _series(run, probe) for probe in PROBES[: 4 if without_first else 3]}
    places = sorted(next(iter(series["mean_distance"].values())))
    spans, curves = [], {}
    for example in series["mean_distance"]:
        distance, near, future = (
            np.stack([series[probe][example][place] for place in places]) for probe in PROBES[:3]
        )  # each [head, position]
        if without_first:
            first = np.stack([series["first_token_mass"][example][place] for place in places])
            distance, near = _without_first(distance, near, first)
            future = np.concatenate([np.full((len(places), 1), np.nan), future[:, 1:]], axis=1)
        spans.append(_mean(distance, axis=1))
        curves[example] = (near, future)
    order = np.argsort(_mean(np.stack(spans), axis=0), kind="stable")
    count = max(1, round(SHARE * len(places)))
    low, high = order[:count], order[-count:][::-1]
    tables = [
        _tokens(example, _mean(near[low], 0), _mean(future[high], 0)) for example, (near, future) in curves.items()
    ]
    names = [head_name(*place) for place in places]
    return Rhythm(
        [names[index] for index in low],
        [names[index] for index in high],
        pd.concat(tables, ignore_index=True),
        _statistics(tables),
    )


def _series(run: Run, probe: str) -> dict[int, dict[tuple[int, int], np.ndarray]]:
    """example -> (layer, head) -> values by position."""
    if probe not in run.header["probes"]:
        raise UserError(
            f"run {run.id} holds no probe {probe}; the rhythm needs {', '.join(PROBES)}. Measure them on the same data"
        )
    frame = run.positions(probe)
    if frame.empty:
        raise UserError(f"run {run.id} keeps no example token by token; measure with --keep-positions 8 or more")
    found: dict[int, dict[tuple[int, int], np.ndarray]] = {}
    for line in frame.to_dict("records"):
        found.setdefault(int(line["example"]), {})[int(line["layer"]), int(line["head"])] = np.asarray(
            line["values"], dtype=float
        )
    return found


def _without_first(distance: np.ndarray, near: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and clipped distance [head, position] of the weights on all keys but the first, renormalised."""
    place = np.arange(distance.shape[1])
    rest = np.where(1 - first > FULL, 1 - first, np.nan)
    return (distance - first * place) / rest, (near - first * np.minimum(place, WIDTH)) / rest


def _tokens(example: int, waad: np.ndarray, fai: np.ndarray) -> pd.DataFrame:
    """The series of one example with what they mark."""
    step = np.append(np.abs(np.diff(waad)), np.nan)
    return pd.DataFrame(
        {
            "example": example, "position": np.arange(len(waad)), "waad": waad, "fai": fai, "step": step,
            "preplan": _top(step), "anchor": _top(fai), "waad_peak": peaks(waad), "fai_peak": peaks(fai),
        }
    )  # fmt: skip


def peaks(values: np.ndarray) -> np.ndarray:
    """bool [position], local maxima above mean + 0.5 standard deviations of what is around; undefined ends are none."""
    before, behind = np.append(np.nan, values[:-1]), np.append(values[1:], np.nan)
    with np.errstate(invalid="ignore"):
        higher = (values > before) & (values >= behind)
    window = np.lib.stride_tricks.sliding_window_view(np.pad(values, AROUND, constant_values=np.nan), 2 * AROUND + 1)
    mean = _mean(window, 1)
    spread = np.sqrt(_mean((window - mean[:, None]) ** 2, 1))
    return higher & (values > mean + PEAK * spread)


def _top(values: np.ndarray) -> np.ndarray:
    known = values[~np.isnan(values)]
    return values >= np.quantile(known, 1 - TOP) if len(known) else np.zeros(len(values), dtype=bool)


def _statistics(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """How often one mark follows another, beside what it is when the second is shifted."""
    pairs = {
        "WAAD peak with a FAI peak at it or within 3 tokens": ("waad_peak", "fai_peak"),
        "preplan token with an anchor at it or within 3 tokens": ("preplan", "anchor"),
    }
    rows = []
    for name, (cause, effect) in pairs.items():
        made = np.array([followed(table[cause].to_numpy(), table[effect].to_numpy()) for table in tables])
        made = made[~np.isnan(made).any(1)]
        difference = (made[:, 0] - made[:, 1])[:, None]
        low = high = np.array([np.nan])
        if len(made) >= MIN_CLUSTERS:
            low, high = bootstrap_mean(difference, np.arange(len(made)))
        means = made.mean(0) if len(made) else np.full(2, np.nan)
        rows.append((name, *means, means[0] - means[1], low[0], high[0], len(made)))
    return pd.DataFrame(rows, columns=["statistic", "value", "expected", "difference", "ci_low", "ci_high", "n"])


def followed(cause: np.ndarray, effect: np.ndarray) -> tuple[float, float]:
    """Share of causes with an effect 0 to 3 tokens later, and its mean over shifts of the effects by 8 to 24 tokens.

    Causes whose effects a shift moves off the text are left out of that shift.
    """
    if not cause.any() or not effect.any():
        return np.nan, np.nan
    count, place = len(effect), np.flatnonzero(cause)
    near = np.zeros(count, dtype=bool)
    for ahead in range(REACH + 1):
        near[: count - ahead] |= effect[ahead:]
    shifts = range(SHIFTS[0], SHIFTS[1] + 1)
    moved = [place + shift for size in shifts for shift in (size, -size)]
    shares = [near[at[inside]].mean() for at in moved if (inside := (at >= 0) & (at < count)).any()]
    return float(near[place].mean()), float(np.mean(shares)) if shares else np.nan


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean that skips NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / np.where(known.any(axis), known.sum(axis), np.nan)
