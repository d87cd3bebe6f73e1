"""All readings of a run side by side: one figure of small heatmaps, each on its own colour range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .cells import Limits, cells, colour_limits, outlines, ticks, undefined
from .reading import Reading
from .theme import COLOURS, Scheme, template
from .wording import span

SHORT_UNIT = 8
"""Longer units would run into the next panel; the card above the figure has them all."""


def range_words(reading: Reading, limits: Limits) -> str:
    """The ends of a small heatmap's colour scale, with the unit where it is short."""
    low, high, _ = colour_limits(reading, limits)
    unit = f" {reading.unit}" if 0 < len(reading.unit) <= SHORT_UNIT else ""
    return f"{span(low, high)}{unit}"


def multiples_figure(
    readings: list[Reading],
    *,
    scheme: Scheme = "light",
    limits: Limits = "full",
    flip: bool = False,
    top: int = 0,
    selected: str | None = None,
    marked: Sequence[str] = (),
) -> go.Figure:
    """All readings of a run as small heatmaps in one figure, each on its own range, which its title states."""
    columns = min(4, max(len(readings), 1))
    rows = -(-max(len(readings), 1) // columns)
    titles = [f"<b>{r.short_title}</b><br>{range_words(r, limits)}" for r in readings]
    height = 60 + rows * (62 + min(max(readings[0].layers * 12, 130), 360)) if readings else 240
    gap = 62 / height
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=titles, horizontal_spacing=0.03, vertical_spacing=min(gap, 0.9 / rows)
    )
    for index, reading in enumerate(readings):
        place: Any = {"row": index // columns + 1, "col": index % columns + 1}
        heat = cells(reading, limits=limits)
        heat.update(xgap=0.5, ygap=0.5, name=reading.probe)
        figure.add_trace(heat, **place)
        figure.add_trace(undefined(reading, scheme), **place)
        for frames in outlines(reading, top, selected, marked, scheme=scheme, widths=(1.4, 2.6)):
            figure.add_trace(frames, **place)
        figure.update_xaxes(showgrid=False, **ticks(reading.heads, 6), **place)
        figure.update_yaxes(showgrid=False, **ticks(reading.layers, 6, flip=flip), **place)
    figure.update_annotations(font={"size": 12, "color": COLOURS[scheme]["text"]}, xanchor="center")
    figure.update_layout(
        template=template(scheme),
        height=height,
        barmode="overlay",
        margin={"l": 30, "r": 10, "t": 40, "b": 26},
        uirevision="multiples",
    )
    return figure
