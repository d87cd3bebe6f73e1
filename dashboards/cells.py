"""The cells of a layer x head picture: their colours, the gaps, the frames around some of them, the ticks beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from ..data.heads import head_name, parse_head
from .reading import Reading
from .theme import COLOURS, DIVERGING, SEQUENTIAL, Scheme
from .wording import UNDEFINED, hover, number

Limits = Literal["full", "robust", "bounds"]
ROBUST = (2.0, 98.0)
DIFFERENCE_WORDS = {
    "full": "even to both sides of 0, up to the largest difference",
    "robust": "even to both sides of 0, 2nd to 98th percentile of heads, the rest clipped",
    "bounds": "all differences the probe can have",
}
NARROW = 0.02
"""A full range below this share of the probe's bounds is said to be narrow: its colours show small differences."""


def colour_limits(reading: Reading, limits: Limits = "full") -> tuple[float, float, str]:
    """The ends of the colour scale and the words that state them; signed data is kept symmetric about zero."""
    value = reading.table["value"].to_numpy(float)
    value = value[np.isfinite(value)]
    if not value.size:
        return 0.0, 1.0, "no defined value"
    floor, ceiling = reading.bounds
    low, high, words = float(value.min()), float(value.max()), "lowest to highest head"
    if limits == "robust":
        low, high = (float(x) for x in np.percentile(value, ROBUST))
        words = "2nd to 98th percentile of heads, the rest clipped"
    if limits == "bounds":
        low, high = (low if floor is None else floor), (high if ceiling is None else ceiling)
        words = "all values the probe can take" if None not in (floor, ceiling) else "bound to highest head"
    if reading.minus:
        words = DIFFERENCE_WORDS[limits if floor is not None else "full" if limits == "bounds" else limits]
    if reading.signed:
        high = max(abs(low), abs(high))
        low = -high
    if high <= low and reading.minus:
        return -1.0, 1.0, f"every head has {number(low)}"
    if high <= low:
        words = f"every head has {number(low)}"
        return (low, low + 1.0, words) if floor is None or ceiling is None else (floor, ceiling, words)
    whole = None if floor is None or ceiling is None else ceiling - floor
    if limits == "full" and whole is not None and high - low < NARROW * whole:
        words += f", under {NARROW:.0%} of what the probe can take"
    return low, high, words


def cells(reading: Reading, *, limits: Limits = "full", numbers: bool = False) -> go.Heatmap:
    """The coloured cells; NaN cells stay empty, `undefined` hatches them."""
    low, high, _ = colour_limits(reading, limits)
    grid = reading.grid("value")
    written = np.array([[number(x) if np.isfinite(x) else "" for x in row] for row in grid]) if numbers else None
    return go.Heatmap(
        z=grid,
        zmin=low,
        zmax=high,
        colorscale=DIVERGING if reading.signed else SEQUENTIAL,
        hovertext=hover_grid(reading),
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        text=written,
        texttemplate="%{text}" if numbers else None,
        xgap=1.5,
        ygap=1.5,
        showscale=False,
        meta="cells",
    )


def hover_grid(reading: Reading) -> np.ndarray:
    """The hover text of every cell, as a [layer, head] matrix."""
    grid = np.full((reading.layers, reading.heads), "", dtype=object)
    for place in np.ndindex(grid.shape):
        grid[place] = f"<b>{head_name(*place)}</b><br>{reading.title}: not measured"
    for row in reading.table.itertuples(index=False):
        grid[row.layer, row.head] = hover(reading, row)
    return grid


def undefined(reading: Reading, scheme: Scheme) -> go.Bar:
    """Hatched tiles over the cells without a value: never a colour of the scale, never 0."""
    layer, head = np.nonzero(~np.isfinite(reading.grid("value")))
    measured = {(row.layer, row.head) for row in reading.table.itertuples(index=False)}
    words = [
        f"<b>{head_name(*cell)}</b><br>{reading.title}: {UNDEFINED if cell in measured else 'not measured'}"
        for cell in zip(layer.tolist(), head.tolist(), strict=True)
    ]
    colours = COLOURS[scheme]
    return go.Bar(
        x=head,
        y=np.full(layer.size, 0.94),
        base=layer - 0.47,
        width=0.95,
        marker={
            "color": colours["undefined"],
            "line": {"width": 0},
            "pattern": {
                "shape": "/",
                "size": 5,
                "solidity": 0.25,
                "fgcolor": colours["hatch"],
                "bgcolor": colours["undefined"],
                "fillmode": "replace",
            },
        },
        hovertext=words,
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        meta="undefined",
    )


def outlines(
    reading: Reading,
    top: int,
    selected: str | None,
    marked: Sequence[str] = (),
    *,
    scheme: Scheme,
    widths: tuple[float, float],
) -> list[go.Scatter]:
    """Frames around the `top` highest heads, around those that are marked, and around the selected one."""
    best = [(row.layer, row.head) for row in reading.top(top).itertuples(index=False)]
    framed = {"top": best, "marked": [parse_head(name) for name in marked]}
    framed["selected"] = [parse_head(selected)] if selected else []
    return [
        outline(heads, colour=COLOURS[scheme][meta], width=widths[meta == "selected"], meta=meta)
        for meta, heads in framed.items()
    ]


def outline(heads: list[tuple[int, int]], *, colour: str, width: float, meta: str) -> go.Scatter:
    """Frames around cells, as one line trace with gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    for layer, head in heads:
        x += [head - 0.5, head + 0.5, head + 0.5, head - 0.5, head - 0.5, None]
        y += [layer - 0.5, layer - 0.5, layer + 0.5, layer + 0.5, layer - 0.5, None]
    line = {"color": colour, "width": width}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, meta=meta)


def ticks(count: int, room: int, *, flip: bool = False) -> dict[str, Any]:
    """Whole-numbered ticks, thinned so that about `room` of them stay; flipped, 0 is at the far end."""
    step = next((s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50) if count / s <= room), 64)
    ends = [-0.5, count - 0.5]
    return {"tickmode": "array", "tickvals": list(range(0, count, step)), "range": ends[::-1] if flip else ends}
