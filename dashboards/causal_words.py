"""A causal report in words: what was edited, on what, and what became of the first score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.causal import CHOSEN, COMPLEMENT, LOWER_IS_BETTER, RANDOM, UNEDITED, CausalReport
from .wording import effect_text, interval, number, signed, signed_interval

NAMED = 4
"""More heads than these are counted, not named."""
DIFFERENCE = "difference to unedited, 95 %"
UNSAID = ("kind", "heads", "by_prompt", "phase", "tower")
"""What is no parameter of an edit's kind."""


def title_of(report: CausalReport) -> str:
    """What was edited, on how many prompts of what."""
    header = report.runs[UNEDITED].header
    return f"<b>Edit {edit_words(report)}</b> · {header['model']['name']} · n {max(report.table['n'].tolist())}"


def panel_title(card: Any, name: str) -> str:
    """The score with its unit, and which way is better where that is down."""
    unit = f" · {card['unit']}" if card.get("unit") else ""
    return f"<b>{card.get('title') or name}</b>{unit}{' · lower is better' if name in LOWER_IS_BETTER else ''}"


def edit_words(report: CausalReport) -> str:
    """What was done to which heads, in a few words: `mask(sinks=4, recent=16) of 40 heads`."""
    chosen = next((report.runs[name] for name in CHOSEN if name in report.runs), None)
    cards = [] if chosen is None else (chosen.header.get("edits") or [[]])[0]
    kinds = " and ".join(dict.fromkeys(map(kind_words, cards)))
    return f"{kinds} of {heads_words(report)}" if kinds else "nothing edited"


def kind_words(card: Mapping[str, Any]) -> str:
    """The kind of an edit with its parameters: `mask(sinks=4, recent=16)`."""
    given = ", ".join(f"{name}={value}" for name, value in card.items() if name not in UNSAID)
    return f"{card['kind']}({given})" if given else str(card["kind"])


def heads_words(report: CausalReport, most: int = NAMED) -> str:
    """The heads by name where they are few, else how many."""
    return ", ".join(report.heads) if 0 < len(report.heads) <= most else f"{len(report.heads)} heads"


def line_name(report: CausalReport, condition: str, sets: int) -> str:
    """What a condition is called beside its line."""
    if condition == RANDOM:
        return f"{sets} random set{'' if sets == 1 else 's'}"
    heads = heads_words(report, 2)  # beside the lines there is room for two
    named = {"edited": f"edited, {heads}", COMPLEMENT: "all other heads edited"}
    return named.get(condition, condition)


def difference_text(line: Any) -> str:
    """The difference of a line of a report with its interval, to stand in a picture."""
    return f"<b>{signed(line.difference)}</b>  {signed_interval(line.ci_low, line.ci_high)}"


def line_words(line: Any, name: str) -> list[str]:
    """What a line of a report says when it is pointed at."""
    words = [f"<b>{name}</b>", f"mean {number(line.mean)}, 95 % interval {interval(line.mean_low, line.mean_high)}"]
    if line.condition == RANDOM:
        words.append(f"single sets {number(line.lowest)} to {number(line.highest)}")
    if line.condition != UNEDITED:
        ends = signed_interval(line.ci_low, line.ci_high)
        words.append(f"difference {signed(line.difference)}, 95 % interval {ends}")
    if np.isfinite(line.effect):
        words.append(f"effect {effect_text(line.effect)} from the mean of the random sets")
    elif line.no_effect:
        words.append(f"no effect: {line.no_effect}")
    return [*words, f"n {int(line.n)}"]


def causal_sentence(report: CausalReport) -> str:
    """The first score in one sentence: what the edit did to it, and what random sets did."""
    rows = report.table.loc[report.table["score"] == report.table["score"].iloc[0], :].set_index("condition")
    card = report.runs[UNEDITED].header["probes"][report.table["score"].iloc[0]]
    title = card.get("title") or report.table["score"].iloc[0]
    chosen = next((name for name in CHOSEN if name in report.runs), UNEDITED)
    line = rows.loc[chosen]
    said = f"{title}, with {edit_words(report)}: {number(line['mean'])}, unedited {number(rows.loc[UNEDITED, 'mean'])}"
    ends = signed_interval(float(line["ci_low"]), float(line["ci_high"]))
    said += f"; difference {signed(float(line['difference']))}, 95 % interval {ends}."
    if RANDOM in report.runs:
        random = rows.loc[RANDOM]
        said += (
            f" {int(random['sets'])} random sets of as many heads, from {report.drawn_from}: mean "
            f"{number(random['mean'])}, single ones {number(random['lowest'])} to {number(random['highest'])}."
        )
    return said + "".join(f" No effect is given{where}: {why}." for where, why in _no_effects(report, chosen))


def _no_effects(report: CausalReport, condition: str) -> list[tuple[str, str]]:
    """(for which scores, why) where a report has no effect; for which is not said where it is all of them."""
    lines = report.table.loc[report.table["condition"] == condition, :]
    cards = report.runs[UNEDITED].header["probes"]
    found = []
    for why, some in lines.loc[lines["no_effect"] != "", :].groupby("no_effect", sort=False):
        names = ", ".join(cards[score].get("title") or score for score in some["score"])
        found.append(("" if len(some) == len(lines) else f" for {names}", str(why)))
    return found
