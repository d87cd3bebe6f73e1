"""A causal report in pictures: each score of the unedited and the edited model, of random sets and of all other heads.

A panel a score, a line a condition. Points have 95 % intervals over prompts; a small dot is one random set, their mean
the bar across them. Beside each line stands its paired difference to the unedited model, with a 95 % interval. Where
there is no room beside the lines, name and difference stand above each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.causal import CHOSEN, COMPLEMENT, RANDOM, UNEDITED, CausalReport, values_of
from ..data.errors import UserError
from .causal_words import DIFFERENCE, difference_text, line_name, line_words, panel_title, title_of
from .reading import Frame, bounds
from .theme import COLOURS, QUALITATIVE, Scheme, template

PANEL, BOTTOM = 64, 44
"""Pixels between the lines of two panels, and below the last one."""
SYMBOLS = {UNEDITED: "circle-open", COMPLEMENT: "square", **dict.fromkeys(CHOSEN, "circle")}


@dataclass(frozen=True)
class Look:
    """How a report is laid out: its colours, and whether words stand above the lines or beside them."""

    scheme: Scheme
    narrow: bool

    @property
    def line(self) -> int:
        """Pixels of a condition."""
        return 50 if self.narrow else 30

    @property
    def margin(self) -> dict[str, int]:
        """Pixels at the left and at the right."""
        return {"l": 12, "r": 12} if self.narrow else {"l": 12, "r": 232}


def causal_figure(
    report: CausalReport, score: str | None = None, *, title: bool = True, scheme: Scheme = "light",
    narrow: bool = False,
) -> go.Figure:  # fmt: skip
    """Every score of a causal report, or one of them: unedited, edited, random sets, all other heads.

    Points have 95 % intervals over prompts; dots are single random sets, the bar their mean. The difference to the
    unedited model, paired by prompt, stands beside each line, or above it where the picture has to be `narrow`.
    """
    table = report.table.loc[report.table["condition"].isin(list(report.runs)), :]
    known = list(dict.fromkeys(table["score"]))
    if score is not None and score not in known:
        raise UserError(f"the report has no score {score!r}; it has {', '.join(known)}")
    shown, look = [score] if score else known, Look(scheme, narrow)
    top, height = top_of(title=title), height_of(report, len(shown), title=title, narrow=narrow)
    plot = height - top - BOTTOM
    cards = report.runs[UNEDITED].header["probes"]
    figure = make_subplots(
        rows=len(shown), cols=1, vertical_spacing=min(PANEL / plot, 0.9 / len(shown)) if len(shown) > 1 else 0,
        subplot_titles=[panel_title(cards[name], name) for name in shown],
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font={"size": 13}, yshift=4)
    for row, name in enumerate(shown, start=1):
        _panel(figure, report, table.loc[table["score"] == name, :], cards[name], row, look)
    if not narrow:
        figure.add_annotation(
            text=DIFFERENCE, x=1, xref="paper", xshift=16, xanchor="left", y=1, yref="paper", yshift=4,
            yanchor="bottom", showarrow=False, font={"color": COLOURS[scheme]["muted"], "size": 12}, name="heading",
        )  # fmt: skip
    figure.update_layout(
        template=template(scheme), height=height, margin={**look.margin, "t": top, "b": BOTTOM}, showlegend=False
    )
    if title:
        heading = {"text": title_of(report), "x": 0, "xref": "container", "y": 1, "yref": "container"}
        figure.update_layout(title={**heading, "xanchor": "left", "yanchor": "top", "pad": {"t": 14, "l": 14}})
    return figure


def top_of(*, title: bool) -> int:
    """Pixels above the first panel's lines."""
    return 76 if title else 38


def height_of(report: CausalReport, scores: int = 0, *, title: bool = True, narrow: bool = False) -> int:
    """The height of the picture of so many scores, by default of all."""
    count, line = scores or len(set(report.table["score"])), Look("light", narrow).line
    return top_of(title=title) + count * (line * len(report.runs) + PANEL) - PANEL + BOTTOM


def colour_of(condition: str, scheme: Scheme) -> str:
    """The colour of a condition."""
    colours = {UNEDITED: COLOURS[scheme]["text"], RANDOM: COLOURS[scheme]["muted"]}
    return colours.get(
        condition, COLOURS[scheme]["selected"] if condition in CHOSEN else QUALITATIVE[0 if scheme == "light" else 4]
    )


def _panel(figure: go.Figure, report: CausalReport, rows: Frame, card: Any, row: int, look: Look) -> None:
    """One score: a line for each condition, the first at the top."""
    place: Any = {"row": row, "col": 1}
    names = [line_name(report, one.condition, one.sets) for one in rows.itertuples(index=False)]
    written = [f"<b>{name}</b>" if one in CHOSEN else name for name, one in zip(names, rows["condition"], strict=True)]
    plain = float(rows.loc[rows["condition"] == UNEDITED, "mean"].iloc[0])
    for index, line in enumerate(rows.itertuples(index=False)):
        at = len(names) - 1 - index
        if line.condition == RANDOM:
            _strip(figure, values_of(report.runs[RANDOM], line.score).mean(0), at, look, place)
        figure.add_trace(_point(line, at, names[index], look.scheme), **place)
        if line.condition != UNEDITED:
            _say(figure, difference_text(line), at, f"{line.score}/{line.condition}", look, place)
        if look.narrow:
            _say(figure, written[index], at, f"{line.score}/{line.condition}/name", look, place)
    figure.add_vline(x=plain, line={"color": COLOURS[look.scheme]["hatch"], "width": 1.2, "dash": "dot"}, **place)
    low, high = bounds(card)
    limits = [low - 0.03 * (high - low), high + 0.03 * (high - low)] if low is not None and high is not None else None
    figure.update_xaxes(range=limits, nticks=7, tickangle=0, tickfont={"size": 11}, **place)
    ticks = {"tickvals": list(range(len(names))), "ticktext": written[::-1], "showticklabels": not look.narrow}
    font = {"size": 12.5, "color": COLOURS[look.scheme]["text"]}
    ends = [-0.35, len(names) - 0.2] if look.narrow else [-0.6, len(names) - 0.4]
    figure.update_yaxes(
        range=ends, showgrid=False, automargin=True, tickfont=font, ticklabelstandoff=8, **ticks, **place
    )


def _say(figure: go.Figure, text: str, at: int, name: str, look: Look, place: Any) -> None:
    """A name or a difference beside its line, or above it: names at the left, differences at the right."""
    left = name.endswith("/name")
    where: dict[str, Any] = {"x": 1, "xshift": 16, "xanchor": "left", "y": at}
    if look.narrow:
        where = {"x": 0 if left else 1, "xanchor": "left" if left else "right", "y": at, "yshift": 20}
        where |= {"bgcolor": COLOURS[look.scheme]["surface"], "borderpad": 1}  # over the lines of the grid
    figure.add_annotation(
        text=text, showarrow=False, xref="x domain", yref="y", name=name, font={"size": 12.5}, **where, **place
    )


def _point(line: Any, at: int, name: str, scheme: Scheme) -> go.Scatter:
    """The mean of a condition with its interval; of random sets a bar across them."""
    random = line.condition == RANDOM
    colour = colour_of(line.condition, scheme)
    marker = {"symbol": SYMBOLS.get(line.condition, "square"), "size": 10, "color": colour}
    if random:
        marker = {"symbol": "line-ns", "size": 17, "line": {"width": 2.6, "color": COLOURS[scheme]["text"]}}
    if line.condition == UNEDITED:
        marker |= {"line": {"width": 2.2, "color": colour}}
    spread = {"array": [line.mean_high - line.mean], "arrayminus": [line.mean - line.mean_low]}
    known = not random and np.isfinite(line.mean_low)
    return go.Scatter(
        x=[line.mean], y=[at], mode="markers", marker=marker, name=line.condition, meta=line.condition,
        error_x={"type": "data", "symmetric": False, "thickness": 1.8, "width": 5, "color": colour, **spread}
        if known else None,
        hovertext=["<br>".join(line_words(line, name))], hovertemplate="%{hovertext}<extra></extra>",
        cliponaxis=False,
    )  # fmt: skip


def _strip(figure: go.Figure, means: np.ndarray, at: int, look: Look, place: Any) -> None:
    """One dot a random set, spread a little so that equal ones stay visible."""
    spread = np.random.default_rng(0).uniform(-0.24, 0.24, len(means)) * (0.6 if look.narrow else 1)
    figure.add_trace(
        go.Scatter(
            x=means, y=at + spread, mode="markers", meta="sets", cliponaxis=False,
            marker={"size": 6.5, "color": COLOURS[look.scheme]["muted"], "opacity": 0.55},
            hovertemplate="one random set: %{x:.4g}<extra></extra>",
        ),
        **place,
    )  # fmt: skip
