"""The causal report of linked runs: a score of the model as it is, beside the score with some heads edited.

A report is read from runs of edited forwards over the same prompts: `unedited`, `edited` or `policy`, `random` sets of
as many heads, and all others (`complement`). Differences are paired by prompt; intervals are 95 % over clusters of
prompts. `effect` is how far a difference lies from the mean of the random sets' differences, in standard deviations:
d / sqrt(sd^2 + se^2), where sd is the spread of the sets and se the standard error of d over clusters of prompts. With
sd alone it would grow without end where random sets do nothing; with se it is never more than the prompts can tell.
Where all prompts of a score of 0 and 1 go one way, se is that of two shares with a success and a failure added to each.
NaN, and `no_effect` says why, below 5 random sets, below 5 clusters, and where neither sets nor prompts differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .against import compare
from .intervals import MIN_CLUSTERS, bootstrap_mean, cluster_sums, wilson
from .run import Run

LOWER_IS_BETTER = frozenset({"answer_loss", "answer_entropy", "token_loss", "repeat_loss"})
"""Scores that rise as the model does worse."""
UNEDITED, RANDOM, COMPLEMENT = "unedited", "random", "complement"
CHOSEN = ("edited", "policy")
"""The condition that a report is about."""
MIN_SETS = 5
"""Fewer random sets than this, and no effect: their spread would be a guess."""
ROUNDING = 1e-9
"""Scores that differ by less do not differ."""


@dataclass(frozen=True)
class CausalReport:
    """What an edit did: a row a condition and score, the runs it is read from, and how the control was drawn."""

    table: pd.DataFrame
    """condition, score, sets, mean, mean_low, mean_high, difference, ci_low, ci_high, lowest, highest, effect, n,
    no_effect (why there is no effect)."""
    runs: dict[str, Run]
    """unedited, edited, random, complement."""
    heads: tuple[str, ...]
    drawn_from: str
    left_out: int
    """Prompts left out because they were used to choose the heads."""


def report_of(runs: Mapping[str, Run]) -> CausalReport:
    """The report of runs by condition, the unedited one among them."""
    chosen = next((runs[name] for name in CHOSEN if name in runs), None)
    header = chosen.header if chosen else {}
    heads = dict.fromkeys(name for card in (header.get("edits") or [[]])[0] for name in card.get("heads") or ())
    drawn = str(runs[RANDOM].header.get("said") or "") if RANDOM in runs else ""
    left_out = sum(int(one.get("left_out") or 0) for one in header.get("parents") or ())
    return CausalReport(table_of(runs), dict(runs), tuple(heads), drawn.partition(" from ")[2], left_out)


def values_of(run: Run, score: str) -> np.ndarray:
    """[example, variant] of one score."""
    rows = run.rows(score)
    parts = list(run.header["probes"][score]["parts"]) or [""]
    grid = np.full((int(run.header["data"]["examples"]), len(parts)), np.nan)
    column = pd.Index(parts).get_indexer(pd.Index(rows["part"].astype(str)))
    grid[rows["example"].to_numpy(), column] = rows["value"].to_numpy(dtype=float)
    return grid


def mean_of(values: np.ndarray, clusters: np.ndarray, *, binary: bool) -> dict[str, Any]:
    """mean, its interval over clusters, n, sets, lowest and highest of single sets, of values [example, set].

    Wilson's interval where a single value is 0 or 1: cautious for the mean of several sets, and never without width.
    """
    one, single, n = values.mean(1, keepdims=True), values.mean(0), len(np.unique(clusters))
    if binary:
        low, high = wilson(one.mean(0) * n, np.full(1, n))
    else:
        low, high = bootstrap_mean(one, clusters)
    return {
        "mean": float(one.mean()), "ci_low": float(low[0]), "ci_high": float(high[0]), "n": n,
        "sets": values.shape[1], "lowest": float(single.min()), "highest": float(single.max()),
    }  # fmt: skip


def table_of(runs: Mapping[str, Run]) -> pd.DataFrame:
    """The rows of a report; a random set is one of many, so its line is the mean over sets of each prompt."""
    base = runs[UNEDITED]
    clusters = base.examples()["cluster"].to_numpy()
    lines = []
    for score, card in base.header["probes"].items():
        plain, binary = values_of(base, score), bool(card["binary"])
        random = values_of(runs[RANDOM], score) if RANDOM in runs else np.zeros((len(plain), 0))
        for name, run in runs.items():
            values = values_of(run, score)
            line = _line(values, plain, clusters, binary=binary)
            effect, why = (
                (np.nan, "") if name in (UNEDITED, RANDOM) else effect_of(values[:, 0], random, clusters, binary=binary)
            )
            n = line.pop("n")
            lines.append({"condition": name, "score": score} | line | {"effect": effect, "n": n, "no_effect": why})
    return pd.DataFrame(lines)


def _line(values: np.ndarray, plain: np.ndarray, clusters: np.ndarray, *, binary: bool) -> dict[str, Any]:
    """One condition beside the unedited model, from values [example, set] of both."""
    several, one = values.shape[1] > 1, values.mean(1, keepdims=True)
    own = mean_of(values, clusters, binary=binary)
    shares = binary and bool(np.isin(one, (0, 1)).all())  # where all sets agree too: a bootstrap would have no width
    found = compare(one, plain, clusters, binary=shares)
    line = {"sets": own["sets"], "mean": own["mean"], "mean_low": own["ci_low"], "mean_high": own["ci_high"]}
    line |= {key: float(found[key][0]) for key in ("difference", "ci_low", "ci_high")}
    line |= {key: own[key] if several else np.nan for key in ("lowest", "highest")}
    return line | {"n": int(found["n"][0])}


def effect_of(values: np.ndarray, sets: np.ndarray, clusters: np.ndarray, *, binary: bool = False) -> tuple[float, str]:
    """(the effect of an edit's values [example] beside those of random sets [example, set], why there is none).

    >>> prompts = np.arange(8)
    >>> round(effect_of(prompts % 2.0, np.zeros((8, 5)), prompts)[0], 4)  # sets all alike: only the prompts differ
    2.6458
    >>> effect_of(prompts % 2.0, np.zeros((8, 4)), prompts)
    (nan, 'fewer than 5 random sets')
    >>> round(effect_of(np.ones(8), np.zeros((8, 5)), prompts, binary=True)[0], 4)  # every prompt turned
    6.6667
    """
    if sets.shape[1] < MIN_SETS:
        return float("nan"), f"fewer than {MIN_SETS} random sets"
    sums, counts = (one[:, 0] for one in cluster_sums((values - sets.mean(1))[:, None], clusters))
    groups, count = len(sums), counts.sum()
    if groups < MIN_CLUSTERS:
        return float("nan"), f"fewer than {MIN_CLUSTERS} independent prompts"
    distance = float(sums.sum() / count)
    error = np.sqrt(((sums - distance * counts) ** 2).sum() * groups / (groups - 1)) / count
    if binary and not error > ROUNDING and abs(distance) > ROUNDING:
        shares = [(one.mean() * groups + 1) / (groups + 2) for one in (values, sets)]
        error = np.sqrt(sum(share * (1 - share) for share in shares) / groups)
    deviation = float(np.hypot(sets.mean(0).std(ddof=1), error))
    if not deviation > ROUNDING:
        return float("nan"), "neither random sets nor prompts differ"
    return distance / deviation, ""
