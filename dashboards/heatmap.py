"""The atlas as a picture: a layer x head heatmap of one reading, with its colour bar and the means of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .cells import Limits, cells, colour_limits, outlines, ticks, undefined
from .reading import Reading
from .theme import COLOURS, Scheme, template
from .wording import number, span

TITLE = 36
"""Pixels that a title adds to a figure."""


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
    marked: Sequence[str] = (),
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
    for frames in outlines(reading, top, selected, marked, scheme=scheme, widths=(2.6, 4)):
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
