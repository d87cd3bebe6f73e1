"""A score along the number of heads edited: in the order of a reading, and in random orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from ..data.causal import LOWER_IS_BETTER, RANDOM
from ..data.errors import UserError, near_miss
from .reading import Frame
from .theme import COLOURS, QUALITATIVE, Scheme, template
from .wording import signed

CLASSES = tuple(QUALITATIVE[index] for index in (5, 0, 2, 3, 1, 4))
"""A colour a reading; grey is for random orders."""
SINGLE = f"{RANDOM} "
"""What the name of a single random order begins with."""


def budget_figure(
    curves: Frame, score: str, readings: Sequence[str] | None = None, *, scheme: Scheme = "light"
) -> go.Figure:
    """`score` of the `curves` of a budget over the number of heads edited, with 95 % intervals over prompts.

    Faint lines are single random orders, the dotted one their mean. The legend says each reading's area: (mean random
    score - score in the reading's order) over the share of heads edited, the sign turned round for a loss. Of more
    than six `readings`, all by default, the six with the largest areas are drawn.
    """
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
    for size, (name, colour) in enumerate(zip(drawn, CLASSES, strict=False)):
        better = sum(areas[one] >= areas[name] for one in single)
        chance = f", {better} of {len(single)} random orders reach it" if single else ""
        _line(figure, _of(curves, name), f"{name}: area {signed(areas[name])}{chance}", colour, size=11 - size)
    sizes = _of(curves, RANDOM)["heads"].astype(int).tolist()
    figure.update_xaxes(
        title_text="heads edited", tickvals=spaced(sizes), range=[-0.015 * sizes[-1], 1.015 * sizes[-1]]
    )
    better = ", lower is better" if sign < 0 else ""
    figure.update_yaxes(title_text=f"{score.replace('_', ' ')}{better}", rangemode="tozero", nticks=7)
    rest = f", {len(drawn)} of {len(known)} readings" if len(drawn) < len(readings or known) else ""
    figure.update_layout(
        template=template(scheme),
        height=400 + 19 * (len(drawn) + 1 + bool(single)),
        title={"text": f"<b>Head budget</b> · {score.replace('_', ' ')}{rest}", "x": 0, "xref": "paper"},
        margin={"l": 60, "r": 16, "t": 60, "b": 48},
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "font": {"size": 12}, "entrywidth": 1,
                "entrywidthmode": "fraction"},
    )  # fmt: skip
    return figure


def area(reading: Frame, random: Frame) -> float:
    """The mean of (random - reading) over the share of heads edited, by trapezoids."""
    lower = random["mean"].to_numpy(float) - reading["mean"].to_numpy(float)
    return float(np.trapezoid(lower, random["share"].to_numpy(float)))


def spaced(sizes: list[int]) -> list[int]:
    """Sizes to write on the axis: 0, and from the last one down those at least a twentieth of it apart.

    >>> spaced([0, 1, 2, 4, 8, 16, 32, 48])
    [0, 4, 8, 16, 32, 48]
    """
    kept: list[int] = []
    for size in reversed(sizes):
        if min(size, (kept[-1] if kept else 2 * size) - size) * 20 >= sizes[-1]:
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
        line={"color": colour, "width": 1 if faint else 2, "dash": dash}, marker={"size": size},
        opacity=0.35 if faint else 1, legendgroup="single" if faint else name,
        name="single random orders" if faint else name, showlegend=not faint or first,
        meta="single" if faint else "order", customdata=rows[["share", "ci_low", "ci_high"]],
        hoverinfo="skip" if faint else None,
        hovertemplate=None if faint else "%{x} heads, %{customdata[0]:.0%} of all: <b>%{y:.3f}</b>"
                      "<br>95 % interval %{customdata[1]:.3f} – %{customdata[2]:.3f}<extra></extra>",
    )  # fmt: skip


def _between(figure: go.Figure, reading: Frame, random: Frame, colour: str) -> None:
    """The area between the order of a reading and the mean of random ones, shaded."""
    x, y = reading["heads"].tolist(), reading["mean"].tolist()
    figure.add_scatter(
        x=[*x, *random["heads"].tolist()[::-1]], y=[*y, *random["mean"].tolist()[::-1]], fill="toself", mode="lines",
        line={"width": 0}, fillcolor=f"rgba{(*hex_to_rgb(colour), 0.13)}", showlegend=False, hoverinfo="skip",
        meta="between",
    )  # fmt: skip
