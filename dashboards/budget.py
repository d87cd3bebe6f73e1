"""A score along the number of heads edited: in the order of a reading, and in random orders.

Pointing at a step names the heads that it adds. A reading that names fewer heads than there are goes on at random: its
points are open from there on, and the legend says after how many heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from ..data.budget import SINGLE, Budget
from ..data.causal import LOWER_IS_BETTER, RANDOM
from ..data.errors import UserError, near_miss
from .reading import Frame
from .theme import COLOURS, QUALITATIVE, Scheme, template
from .wording import signed

CLASSES = tuple(QUALITATIVE[index] for index in (5, 0, 2, 3, 1, 4))
"""A colour a reading; grey is for random orders."""
NAMED, BESIDE = 24, 6
"""Heads of a step that are named, and how many of them on a line."""


def budget_figure(
    curves: Budget | Frame, score: str | None = None, readings: Sequence[str] | None = None, *, title: bool = True,
    scheme: Scheme = "light", narrow: bool = False,
) -> go.Figure:  # fmt: skip
    """A budget, or `score` of its `curves`, over the number of heads edited, with 95 % intervals over prompts.

    Each step names the heads that it adds; open points are behind the end of what a reading names. Faint lines are
    single random orders, the dotted one their mean. The legend says each reading's area: (mean random score - score in
    the reading's order) over the share of heads edited, the sign turned round for a loss. Of more than six `readings`,
    all by default, the six with the largest areas are drawn. `narrow` is for a phone.
    """
    if isinstance(curves, Budget):
        curves, score = curves.curves, score or curves.score
    if score is None:
        raise UserError("a table of curves does not say its score: expected budget_figure(curves, score)")
    sign = -1 if score in LOWER_IS_BETTER else 1
    named = list(dict.fromkeys(curves["reading"].astype(str)))
    single = [name for name in named if name.startswith(SINGLE)]
    known = [name for name in named if name not in single and name != RANDOM]
    if unknown := [name for name in readings or () if name not in known]:
        near = near_miss(unknown[0], known)
        raise UserError(f"the curves have no reading {unknown[0]!r}.{near} They have {', '.join(known)}")
    areas = {name: sign * area(_of(curves, name), _of(curves, RANDOM)) for name in [*known, *single]}
    drawn = sorted(readings or known, key=lambda name: -areas[name])[: len(CLASSES)]
    figure = go.Figure()
    for name in single:
        _line(figure, _of(curves, name), name, COLOURS[scheme]["muted"], faint=True, first=name == single[0])
    middle = f"random orders, mean of {len(single)}" if single else "random orders, mean"
    _line(figure, _of(curves, RANDOM), middle, COLOURS[scheme]["text"], dash="dot")
    if len(drawn) == 1:
        _between(figure, _of(curves, drawn[0]), _of(curves, RANDOM), CLASSES[0])
    sizes = _of(curves, RANDOM)["heads"].astype(int).tolist()
    for size, (name, colour) in enumerate(zip(drawn, CLASSES, strict=False)):
        better = sum(areas[one] >= areas[name] for one in single)
        said = [f"{name}: area {signed(areas[name])}"]
        said += [f"{better} of {len(single)} random orders reach it"] if single else []
        said += [f"names {end} of {sizes[-1]} heads"] if (end := end_of(_of(curves, name))) < sizes[-1] else []
        text = f"{said[0]}<br>{', '.join(said[1:])}" if narrow and said[1:] else ", ".join(said)
        _line(figure, _of(curves, name), text, colour, size=11 - size)
    figure.update_xaxes(
        title_text="heads edited",
        tickvals=spaced(sizes, 8 if narrow else 20),
        tickangle=0,
        range=[-0.015 * sizes[-1], 1.015 * sizes[-1]],
    )
    better = ", lower is better" if sign < 0 else ""
    figure.update_yaxes(title_text=f"{score.replace('_', ' ')}{better}", rangemode="tozero", nticks=7)
    rest = f", {len(drawn)} of {len(known)} readings" if len(drawn) < len(readings or known) else ""
    top, below = 60 if title else 14, (35 if narrow else 19) * len(drawn) + 19 * (1 + bool(single)) + 64
    figure.update_layout(
        template=template(scheme), height=320 + top + below,
        margin={"l": 44 if narrow else 60, "r": 16, "t": top, "b": below},
        legend={"orientation": "h", "y": -58 / 320, "yanchor": "top", "x": -0.12 if narrow else 0,
                "font": {"size": 12}, "entrywidth": 1, "entrywidthmode": "fraction"},
    )  # fmt: skip
    if title:
        text = f"<b>Head budget</b> · {score.replace('_', ' ')}{rest}"
        figure.update_layout(title={"text": text, "x": 0, "xref": "paper"})
    return figure


def area(reading: Frame, random: Frame) -> float:
    """The mean of (random - reading) over the share of heads edited, by trapezoids."""
    lower = random["mean"].to_numpy(float) - reading["mean"].to_numpy(float)
    return float(np.trapezoid(lower, random["share"].to_numpy(float)))


def end_of(rows: Frame) -> int:
    """How many heads an order's reading names; all of them where the curves do not say."""
    return int(rows["named"].max()) if "named" in rows else int(rows["heads"].max())


def step_words(row: Any) -> str:
    """The heads that a step adds, in lines of six, and whether the reading itself names them."""
    names = str(getattr(row, "added", "")).split()
    if not names:
        return ""
    shown = names[:NAMED]
    lines = [", ".join(shown[at : at + BESIDE]) for at in range(0, len(shown), BESIDE)]
    lines += [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    own = int(row.named) - (int(row.heads) - len(names))
    whose = f"; the reading's order has ended, {len(names) - max(own, 0)} are random" if own < len(names) else ""
    return f"<br>adds {len(names)}{whose}:<br>" + ",<br>".join(lines)


def spaced(sizes: list[int], most: int = 20) -> list[int]:
    """Sizes to write on the axis: 0, and from the last one down those at least a part of it, a twentieth, apart.

    >>> spaced([0, 1, 2, 4, 8, 16, 32, 48])
    [0, 4, 8, 16, 32, 48]
    """
    kept: list[int] = []
    for size in reversed(sizes):
        if min(size, (kept[-1] if kept else 2 * size) - size) * most >= sizes[-1]:
            kept.append(size)
    return [0, *kept[::-1]]


def _of(curves: Frame, name: str) -> Frame:
    return curves.loc[curves["reading"] == name, :].sort_values("heads")


def _line(
    figure: go.Figure, rows: Frame, name: str, colour: str, *, faint: bool = False, first: bool = False,
    dash: str = "solid", size: int = 7,
) -> None:  # fmt: skip
    """One order: a line with intervals; a single random one is faint and bare. Larger points show behind equal ones."""
    spread: Any = None
    if not faint:
        ends = {"array": rows["ci_high"] - rows["mean"], "arrayminus": rows["mean"] - rows["ci_low"]}
        spread = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 4, **ends}
    figure.add_scatter(
        x=rows["heads"], y=rows["mean"], mode="lines" if faint else "lines+markers", error_y=spread, cliponaxis=False,
        line={"color": colour, "width": 1 if faint else 2, "dash": dash},
        marker={"size": size, "symbol": ["circle" if one <= end_of(rows) else "circle-open" for one in rows["heads"]]},
        opacity=0.35 if faint else 1, legendgroup="single" if faint else name,
        name="single random orders" if faint else name, showlegend=not faint or first,
        meta="single" if faint else "order", customdata=rows[["share", "ci_low", "ci_high"]],
        text=[step_words(row) for row in rows.itertuples(index=False)],
        hoverinfo="skip" if faint else None,
        hovertemplate=None if faint else "%{x} heads, %{customdata[0]:.0%} of all: <b>%{y:.3f}</b>"
                      "<br>95 % interval %{customdata[1]:.3f} – %{customdata[2]:.3f}%{text}<extra></extra>",
    )  # fmt: skip


def _between(figure: go.Figure, reading: Frame, random: Frame, colour: str) -> None:
    """The area between the order of a reading and the mean of random ones, shaded."""
    x, y = reading["heads"].tolist(), reading["mean"].tolist()
    figure.add_scatter(
        x=[*x, *random["heads"].tolist()[::-1]], y=[*y, *random["mean"].tolist()[::-1]], fill="toself", mode="lines",
        line={"width": 0}, fillcolor=f"rgba{(*hex_to_rgb(colour), 0.13)}", showlegend=False, hoverinfo="skip",
        meta="between",
    )  # fmt: skip
