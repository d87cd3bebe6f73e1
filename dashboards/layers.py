"""A reading of whole layers as a picture: a bar with its 95 % interval for each layer."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from .cells import ticks
from .heatmap import TITLE, atlas_height, heading
from .reading import Reading
from .theme import COLOURS, Scheme, template
from .wording import certainty, number


def layers_figure(
    reading: Reading, *, scheme: Scheme = "light", flip: bool = False, title: str | None = None
) -> go.Figure:
    """One bar a layer; layer 0 at the bottom unless flipped."""
    table = reading.table
    value, low, high = (table[name].to_numpy(float) for name in ("value", "low", "high"))
    bars = go.Bar(
        x=value,
        y=table["layer"].to_numpy(int),
        orientation="h",
        width=0.72,
        marker={"color": COLOURS[scheme]["accent"], "opacity": 0.8},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(high - value),
            "arrayminus": np.nan_to_num(value - low),
            "thickness": 1.4,
            "width": 3,
            "color": COLOURS[scheme]["text"],
        },
        hovertext=[
            f"<b>Layer {layer}</b><br>{reading.title} {number(mean)}<br>{certainty(reading, *ends)}"
            for layer, mean, *ends in table[["layer", "value", "low", "high"]].itertuples(index=False)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure = go.Figure(bars)
    unit = f", {reading.unit}" if reading.unit else ""
    figure.update_xaxes(title_text=f"{reading.short_title}{unit}", rangemode="tozero")
    figure.update_yaxes(title_text="layer", showgrid=False, **ticks(reading.layers, 32, flip=flip))
    figure.update_layout(
        template=template(scheme),
        height=atlas_height(reading.layers, 1) + (TITLE if title else 0),
        title=heading(title) if title else None,
        margin={"l": 46, "r": 14, "t": 20 + (TITLE if title else 0), "b": 44},
        uirevision="atlas",
    )
    return figure
