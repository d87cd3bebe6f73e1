"""A causal report in pictures: each score of the unedited and the edited model, of random sets and of all other heads.

A panel a score, a line a condition. Points have 95 % intervals over prompts; a small dot is one random set, their mean
the bar across them. Beside each line stands its paired difference to the unedited model, with a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.causal import CHOSEN, COMPLEMENT, LOWER_IS_BETTER, RANDOM, UNEDITED, CausalReport, values_of
from ..data.errors import UserError
from .reading import Frame, bounds
from .theme import COLOURS, QUALITATIVE, Scheme, template
from .wording import interval, number, signed, signed_interval, three_figures

LINE, PANEL, BOTTOM = 30, 64, 44
"""Pixels of a condition, between the lines of two panels, and below the last one."""
NAMED = 4
"""More heads than these are counted, not named."""
SYMBOLS = {UNEDITED: "circle-open", COMPLEMENT: "square", **dict.fromkeys(CHOSEN, "circle")}
UNSAID = ("kind", "heads", "by_prompt", "phase", "tower")
"""What is no parameter of an edit's kind."""
DIFFERENCE = "difference to unedited, 95 %"


def causal_figure(
    report: CausalReport, score: str | None = None, *, title: bool = True, scheme: Scheme = "light"
) -> go.Figure:
    """Every score of a causal report, or one of them: unedited, edited, random sets, all other heads.

    Points have 95 % intervals over prompts; dots are single random sets, the bar their mean. The difference to the
    unedited model, paired by prompt, stands beside each line.
    """
    table = report.table.loc[report.table["condition"].isin(list(report.runs)), :]
    known = list(dict.fromkeys(table["score"]))
    if score is not None and score not in known:
        raise UserError(f"the report has no score {score!r}; it has {', '.join(known)}")
    shown = [score] if score else known
    top, height = top_of(title=title), height_of(report, len(shown), title=title)
    plot = height - top - BOTTOM
    cards = report.runs[UNEDITED].header["probes"]
    figure = make_subplots(
        rows=len(shown), cols=1, vertical_spacing=min(PANEL / plot, 0.9 / len(shown)) if len(shown) > 1 else 0,
        subplot_titles=[panel_title(cards[name], name) for name in shown],
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font={"size": 13}, yshift=4)
    for row, name in enumerate(shown, start=1):
        _panel(figure, report, table.loc[table["score"] == name, :], cards[name], row, scheme)
    figure.add_annotation(
        text=DIFFERENCE, x=1, xref="paper", xshift=16, xanchor="left", y=1, yref="paper", yshift=4, yanchor="bottom",
        showarrow=False, font={"color": COLOURS[scheme]["muted"], "size": 12}, name="heading",
    )  # fmt: skip
    figure.update_layout(
        template=template(scheme),
        height=height,
        margin={"l": 12, "r": 232, "t": top, "b": BOTTOM},
        showlegend=False,
    )
    if title:
        heading = {"text": title_of(report), "x": 0, "xref": "container", "y": 1, "yref": "container"}
        figure.update_layout(title={**heading, "xanchor": "left", "yanchor": "top", "pad": {"t": 14, "l": 14}})
    return figure


def top_of(*, title: bool) -> int:
    """Pixels above the first panel's lines."""
    return 76 if title else 38


def height_of(report: CausalReport, scores: int = 0, *, title: bool = True) -> int:
    """The height of the picture of so many scores, by default of all."""
    count = scores or len(set(report.table["score"]))
    return top_of(title=title) + count * (LINE * len(report.runs) + PANEL) - PANEL + BOTTOM


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


def colour_of(condition: str, scheme: Scheme) -> str:
    """The colour of a condition."""
    colours = {UNEDITED: COLOURS[scheme]["text"], RANDOM: COLOURS[scheme]["muted"]}
    return colours.get(
        condition, COLOURS[scheme]["selected"] if condition in CHOSEN else QUALITATIVE[0 if scheme == "light" else 4]
    )


def _panel(figure: go.Figure, report: CausalReport, rows: Frame, card: Any, row: int, scheme: Scheme) -> None:
    """One score: a line for each condition, the first at the top."""
    place: Any = {"row": row, "col": 1}
    names = [line_name(report, one.condition, one.sets) for one in rows.itertuples(index=False)]
    plain = float(rows.loc[rows["condition"] == UNEDITED, "mean"].iloc[0])
    for line, name in zip(rows.itertuples(index=False), names, strict=True):
        at = len(names) - 1 - names.index(name)
        if line.condition == RANDOM:
            _strip(figure, values_of(report.runs[RANDOM], line.score).mean(0), at, scheme, place)
        figure.add_trace(_point(line, at, name, scheme), **place)
        if line.condition != UNEDITED:
            figure.add_annotation(
                text=f"<b>{signed(line.difference)}</b>  {signed_interval(line.ci_low, line.ci_high)}", showarrow=False,
                x=1, xref="x domain", xshift=16, xanchor="left", y=at, yref="y", name=f"{line.score}/{line.condition}",
                font={"size": 12.5}, **place,
            )  # fmt: skip
    figure.add_vline(x=plain, line={"color": COLOURS[scheme]["hatch"], "width": 1.2, "dash": "dot"}, **place)
    low, high = bounds(card)
    limits = [low - 0.03 * (high - low), high + 0.03 * (high - low)] if low is not None and high is not None else None
    figure.update_xaxes(range=limits, nticks=7, tickfont={"size": 11}, **place)
    written = [f"<b>{name}</b>" if one in CHOSEN else name for name, one in zip(names, rows["condition"], strict=True)]
    ticks = {"tickvals": list(range(len(names))), "ticktext": written[::-1], "tickfont": {"size": 12.5}}
    text = {"color": COLOURS[scheme]["text"]}
    figure.update_yaxes(range=[-0.6, len(names) - 0.4], showgrid=False, automargin=True, **ticks, **place)
    figure.update_yaxes(tickfont=text, ticklabelstandoff=8, **place)


def _point(line: Any, at: int, name: str, scheme: Scheme) -> go.Scatter:
    """The mean of a condition with its interval; of random sets a bar across them."""
    random = line.condition == RANDOM
    colour = colour_of(line.condition, scheme)
    marker = {"symbol": SYMBOLS.get(line.condition, "square"), "size": 10, "color": colour}
    if random:
        marker = {"symbol": "line-ns", "size": 17, "line": {"width": 2.6, "color": COLOURS[scheme]["text"]}}
    if line.condition == UNEDITED:
        marker |= {"line": {"width": 2.2, "color": colour}}
    words = [f"<b>{name}</b>", f"mean {number(line.mean)}, 95 % interval {interval(line.mean_low, line.mean_high)}"]
    if random:
        words.append(f"single sets {number(line.lowest)} to {number(line.highest)}")
    if line.condition != UNEDITED:
        ends = signed_interval(line.ci_low, line.ci_high)
        words.append(f"difference {signed(line.difference)}, 95 % interval {ends}")
    if np.isfinite(line.effect):
        words.append(f"{three_figures(line.effect)} sd from the mean of the random sets' differences")
    spread = {"array": [line.mean_high - line.mean], "arrayminus": [line.mean - line.mean_low]}
    known = not random and np.isfinite(line.mean_low)
    return go.Scatter(
        x=[line.mean], y=[at], mode="markers", marker=marker, name=line.condition, meta=line.condition,
        error_x={"type": "data", "symmetric": False, "thickness": 1.8, "width": 5, "color": colour, **spread}
        if known else None,
        hovertext=["<br>".join([*words, f"n {int(line.n)}"])], hovertemplate="%{hovertext}<extra></extra>",
        cliponaxis=False,
    )  # fmt: skip


def _strip(figure: go.Figure, means: np.ndarray, at: int, scheme: Scheme, place: Any) -> None:
    """One dot a random set, spread a little so that equal ones stay visible."""
    spread = np.random.default_rng(0).uniform(-0.24, 0.24, len(means))
    figure.add_trace(
        go.Scatter(
            x=means, y=at + spread, mode="markers", meta="sets", cliponaxis=False,
            marker={"size": 6.5, "color": COLOURS[scheme]["muted"], "opacity": 0.55},
            hovertemplate="one random set: %{x:.4g}<extra></extra>",
        ),
        **place,
    )  # fmt: skip


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
    return said
