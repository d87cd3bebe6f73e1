"""The atlas as a picture: layer x head heatmaps of one reading, or of all readings of a run side by side."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .readings import Reading, bounds, parse_head
from .theme import COLOURS, DIVERGING, SEQUENTIAL, Scheme, template
from .wording import UNDEFINED, hover, number, span

Limits = Literal["full", "robust", "bounds"]
ROBUST = (2.0, 98.0)
TITLE = 36
"""Pixels that a title adds to a figure."""
NARROW = 0.02
"""A full range below this share of the probe's bounds is said to be narrow: its colours show small differences."""


def colour_limits(reading: Reading, limits: Limits = "full") -> tuple[float, float, str]:
    """The ends of the colour scale and the words that state them; signed data is kept symmetric about zero."""
    value = reading.table["value"].to_numpy(float)
    value = value[np.isfinite(value)]
    if not value.size:
        return 0.0, 1.0, "no defined value"
    floor, ceiling = bounds(reading.card)
    low, high, words = float(value.min()), float(value.max()), "lowest to highest head"
    if limits == "robust":
        low, high = (float(x) for x in np.percentile(value, ROBUST))
        words = "2nd to 98th percentile of heads, the rest clipped"
    if limits == "bounds":
        low, high = (low if floor is None else floor), (high if ceiling is None else ceiling)
        words = "all values the probe can take" if None not in (floor, ceiling) else "bound to highest head"
    if reading.signed:
        high = max(abs(low), abs(high))
        low = -high
    if high <= low:
        return low, low + 1.0, "every head has the lower value"
    whole = None if floor is None or ceiling is None else ceiling - floor
    if limits == "full" and whole is not None and high - low < NARROW * whole:
        words += f", under {NARROW:.0%} of what the probe can take"
    return low, high, words


def hover_grid(reading: Reading) -> np.ndarray:
    """The hover text of every cell, as a [layer, head] matrix."""
    grid = np.full((reading.layers, reading.heads), "", dtype=object)
    for layer in range(reading.layers):
        for head in range(reading.heads):
            grid[layer, head] = f"<b>L{layer}H{head}</b><br>{reading.title}: not measured"
    for row in reading.table.itertuples(index=False):
        grid[row.layer, row.head] = hover(reading, row)
    return grid


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


def undefined(reading: Reading, scheme: Scheme) -> go.Bar:
    """Hatched tiles over the cells without a value: never a colour of the scale, never 0."""
    layer, head = np.nonzero(~np.isfinite(reading.grid("value")))
    measured = {(row.layer, row.head) for row in reading.table.itertuples(index=False)}
    words = [UNDEFINED if cell in measured else "not measured" for cell in zip(layer, head, strict=True)]
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
        hovertext=[f"<b>L{a}H{b}</b><br>{reading.title}: {w}" for a, b, w in zip(layer, head, words, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        meta="undefined",
    )


def outlines(
    reading: Reading, top: int, selected: str | None, *, scheme: Scheme, widths: tuple[float, float]
) -> list[go.Scatter]:
    """Frames around the `top` highest heads, and around the selected one."""
    best = [(row.layer, row.head) for row in reading.top(top).itertuples(index=False)]
    chosen = [parse_head(selected)] if selected else []
    return [
        outline(heads, colour=COLOURS[scheme][meta], width=width, meta=meta)
        for heads, meta, width in zip((best, chosen), ("top", "selected"), widths, strict=True)
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


def group_edges(reading: Reading) -> list[float]:
    """Where one group of query heads that share a key-value head ends and the next begins."""
    if reading.sharing == 1:
        return []
    return [edge - 0.5 for edge in range(reading.sharing, reading.heads, reading.sharing)]


def layer_means(reading: Reading, scheme: Scheme) -> go.Bar:
    """The mean over the defined heads of each layer."""
    mean = reading.table.groupby("layer")["value"].mean().reindex(range(reading.layers))
    return go.Bar(
        x=mean.to_numpy(float),
        y=np.arange(reading.layers),
        orientation="h",
        marker={"color": COLOURS[scheme]["accent"], "opacity": 0.8},
        width=0.72,
        hovertext=[f"<b>Layer {i}</b><br>mean over heads {number(v)}" for i, v in enumerate(mean)],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        meta="marginal",
    )


def ticks(count: int, room: int, *, flip: bool = False) -> dict[str, Any]:
    """Whole-numbered ticks, thinned so that about `room` of them stay; flipped, 0 is at the far end."""
    step = next((s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50) if count / s <= room), 64)
    ends = [-0.5, count - 0.5]
    return {"tickmode": "array", "tickvals": list(range(0, count, step)), "range": ends[::-1] if flip else ends}


def atlas_height(layers: int, heads: int) -> int:
    """A height that keeps cells from growing into slabs or shrinking to lines."""
    cell = 68 if layers <= 4 else 40 if layers <= 8 else 33 if layers <= 16 else 20 if layers <= 36 else 13
    return int(min(max(layers * cell, 190), 1000)) + 104


def atlas_figure(
    reading: Reading,
    *,
    scheme: Scheme = "light",
    limits: Limits = "full",
    flip: bool = False,
    top: int = 0,
    selected: str | None = None,
    title: str | None = None,
) -> go.Figure:
    """Heatmap of one reading with layer means beside it; layer 0 at the bottom unless flipped."""
    colours = COLOURS[scheme]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.84, 0.16], horizontal_spacing=0.025)
    heat = cells(reading, limits=limits, numbers=reading.layers * reading.heads <= 80)
    height = atlas_height(reading.layers, reading.heads) + (TITLE if title else 0)
    heat.update(showscale=True, colorbar=colour_bar(1 - (20 + (TITLE if title else 0)) / height))
    figure.add_trace(heat, row=1, col=1)
    figure.add_trace(undefined(reading, scheme), row=1, col=1)
    for frames in outlines(reading, top, selected, scheme=scheme, widths=(2.6, 4)):
        figure.add_trace(frames, row=1, col=1)
    figure.add_trace(layer_means(reading, scheme), row=1, col=2)
    left: Any = {"row": 1, "col": 1}
    for edge in group_edges(reading):
        figure.add_vline(x=edge, line={"color": colours["text"], "width": 1.2}, opacity=0.55, **left)
    figure.update_xaxes(showgrid=False, **ticks(reading.heads, 32), row=1, col=1)
    figure.update_yaxes(title_text="layer", showgrid=False, **ticks(reading.layers, 32, flip=flip), row=1, col=1)
    figure.update_yaxes(showgrid=False, row=1, col=2)
    figure.update_xaxes(title={"text": "layer mean", "standoff": 6}, nticks=3, rangemode="tozero", row=1, col=2)
    figure.add_annotation(
        text=limit_words(reading, limits), name="limits", x=0, xref="x domain", xanchor="left", y=1, yref="y domain",
        yshift=42, xshift=-2, yanchor="middle", showarrow=False,
    )  # fmt: skip
    figure.add_annotation(
        text="head", x=0.5, xref="x domain", y=0, yref="y domain", yshift=-20, yanchor="top", showarrow=False,
        font={"color": colours["muted"]},
    )  # fmt: skip
    figure.update_layout(
        template=template(scheme),
        height=height,
        barmode="overlay",
        title=heading(title) if title else None,
        margin={"l": 46, "r": 14, "t": 52 + (TITLE if title else 0), "b": 44},
        uirevision="atlas",
    )
    return figure


def heading(title: str) -> dict[str, Any]:
    """A figure title that keeps to the left edge of the plot."""
    return {"text": title, "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 12}}


def colour_bar(place: float) -> dict[str, Any]:
    """A thin horizontal bar above the cells, its top at a fraction of the figure's height."""
    return {
        **{"orientation": "h", "thickness": 8, "len": 0.4, "outlinewidth": 0, "nticks": 5, "tickfont": {"size": 10.5}},
        **{"x": 0, "xanchor": "left", "xpad": 0, "y": place, "yref": "container", "yanchor": "top", "ypad": 0},
    }


def limit_words(reading: Reading, limits: Limits) -> str:
    """The limits of the colour bar in words, with the unit."""
    low, high, words = colour_limits(reading, limits)
    unit = f" {reading.unit}" if reading.unit else ""
    return f"{span(low, high)}{unit}: {words}"


def empty_figure(message: str, *, scheme: Scheme = "light") -> go.Figure:
    """A figure that only says why there is nothing to draw."""
    figure = go.Figure(layout={"template": template(scheme), "height": 240})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return figure.add_annotation(text=message, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper")
