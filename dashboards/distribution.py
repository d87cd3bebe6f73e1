"""One head in pictures: its value over the examples, its place among all heads, its course over lengths, its ranks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .reading import Frame, Reading, by_standing, row_in
from .theme import COLOURS, QUALITATIVE, Scheme, template
from .wording import FROM_WEIGHTS, UNDEFINED, certainty, interval, number, stratum_text

STRIP_LIMIT = 2000
"""More examples than this are drawn as a histogram alone: a strip would hide its own density."""


def edges_of(*samples: np.ndarray, bins: int = 36) -> np.ndarray:
    """Shared histogram edges, so that both panels of the figure are read on one axis."""
    pooled = np.concatenate([sample[np.isfinite(sample)] for sample in samples])
    if not pooled.size:
        return np.linspace(0, 1, bins + 1)
    low, high = float(pooled.min()), float(pooled.max())
    return np.linspace(low, high if high > low else low + 1e-6, bins + 1)


def histogram(values: np.ndarray, edges: np.ndarray, *, colour: str, name: str) -> go.Bar:
    """Counts per bin as bars, counted here so that no raw value needs to travel."""
    counts, _ = np.histogram(values[np.isfinite(values)], edges)
    spans = [f"{number(a)} – {number(b)}" for a, b in pairwise(edges)]
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=float(edges[1] - edges[0]) * 0.92,
        marker={"color": colour, "opacity": 0.85},
        hovertext=[f"{span}<br>{count} {name}" for span, count in zip(spans, counts, strict=True)],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        name=name,
    )


def whole_ticks(counts: Any) -> dict[str, Any]:
    """About three ticks at whole numbers, for an axis that counts."""
    most = int(np.max(np.asarray(counts), initial=1))
    step = next((s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000) if most / s <= 4), max(most // 3, 1))
    return {"tickmode": "array", "tickvals": list(range(0, most + 1, step))}


def strip(values: np.ndarray, *, height: float, colour: str) -> go.Scatter:
    """One dot per example under the histogram, spread a little so that equal values stay visible."""
    values = values[np.isfinite(values)]
    jitter = np.random.default_rng(0).uniform(-1, 1, values.size)
    return go.Scatter(
        x=values,
        y=-height * (0.16 + 0.07 * jitter),
        mode="markers",
        marker={"color": colour, "size": 5, "opacity": 0.55},
        hovertemplate="one example: %{x:.4g}<extra></extra>",
        showlegend=False,
        name="example",
    )


def distribution_figure(reading: Reading, name: str, values: np.ndarray, *, scheme: Scheme = "light") -> go.Figure:
    """Above: this head's value in each example. Below: the mean of every head, and where this one stands."""
    colours = COLOURS[scheme]
    row = row_in(reading, name)
    everyone = reading.table["value"].to_numpy(float)
    edges = edges_of(values, everyone)
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.17,
        row_heights=[0.56, 0.44],
        subplot_titles=[
            f"{name}, {FROM_WEIGHTS}"
            if reading.of_weights
            else f"{name} in each of {int(np.isfinite(values).sum())} examples",
            f"The {'values' if reading.of_weights else 'means'} of all {reading.ranked} heads",
        ],
    )
    bars = histogram(values, edges, colour=colours["accent"], name="examples")
    figure.add_trace(bars, row=1, col=1)
    if np.isfinite(values).sum() <= STRIP_LIMIT:
        tallest = float(np.max(np.asarray(bars.y), initial=1))
        figure.add_trace(strip(values, height=tallest, colour=colours["accent"]), row=1, col=1)
    heads = histogram(everyone, edges, colour=colours["muted"], name="heads")
    figure.add_trace(heads, row=2, col=1)
    if np.isfinite(row["value"]):
        figure.add_vline(x=row["value"], line={"color": colours["selected"], "width": 2})
        figure.add_annotation(
            x=row["value"], y=1, yref="y2 domain", text=f"<b>{name}</b> {number(row['value'])}", showarrow=False,
            font={"color": colours["selected"], "size": 12}, xshift=6 if row["percentile"] < 80 else -6,
            xanchor="left" if row["percentile"] < 80 else "right", yanchor="top", row=2, col=1,
        )  # fmt: skip
    figure.update_annotations(selector={"yanchor": "bottom"}, x=0, xanchor="left", font={"size": 12.5})
    unit = f" ({reading.unit})" if reading.unit else ""
    figure.update_xaxes(showgrid=False, row=1, col=1)
    figure.update_xaxes(title_text=f"{reading.title}{unit}", showgrid=False, row=2, col=1)
    figure.update_yaxes(title_text="examples", **whole_ticks(bars.y), row=1, col=1)
    figure.update_yaxes(title_text="heads", **whole_ticks(heads.y), row=2, col=1)
    figure.update_layout(template=template(scheme), height=340, margin={"l": 52, "r": 16, "t": 22, "b": 44}, bargap=0)
    return figure


def strata_figure(table: Frame, reading: Reading, name: str, *, scheme: Scheme = "light") -> go.Figure:
    """This head against the median head over the strata (lengths), with its interval; never averaged over them."""
    colours = COLOURS[scheme]
    labels = [stratum_text(stratum) for stratum in table["stratum"]]
    spread = {
        "array": table["high"] - table["value"],
        "arrayminus": table["value"] - table["low"],
        "thickness": 1.4,
        "width": 4,
    }
    words = [f"{number(v)}<br>95 % interval {interval(a, b)}" for v, a, b in table[["value", "low", "high"]].to_numpy()]
    figure = go.Figure(
        [
            go.Scatter(
                x=labels, y=table["median"].to_numpy(float), mode="lines+markers", name="median head",
                line={"color": colours["muted"], "width": 1.5, "dash": "dot"}, marker={"symbol": "square", "size": 6},
                hovertemplate="median head %{y:.4g}<extra></extra>",
            ),
            go.Scatter(
                x=labels, y=table["value"].to_numpy(float), error_y=spread, mode="lines+markers", name=name,
                line={"color": colours["selected"], "width": 2}, marker={"size": 8}, hovertext=words,
                hovertemplate=f"<b>{name}</b> %{{hovertext}}<extra></extra>",
            ),
        ]
    )  # fmt: skip
    figure.update_layout(
        template=template(scheme),
        height=210,
        margin={"l": 52, "r": 16, "t": 10, "b": 30},
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 0, "font": {"size": 11.5}},
    )
    figure.update_yaxes(title_text=reading.title, rangemode="tozero", nticks=5)
    figure.update_xaxes(type="category", showgrid=False)
    return figure


def ranks_figure(readings: list[Reading], name: str, *, scheme: Scheme = "light") -> go.Figure:
    """The percentile of one head in every reading, the most telling at the top."""
    colours = COLOURS[scheme]
    rows = [(r, row_in(r, name)) for r in reversed(by_standing(readings, name))]
    rows = [(r, row) for r, row in rows if row is not None]
    labels = [r.title for r, _ in rows]
    words = [
        f"{r.title} <b>{number(row['value'])}</b><br>{certainty(r, row['low'], row['high'])}"
        f"<br>rank {int(row['rank'])} of {r.ranked} · n {int(row['n'])}"
        if np.isfinite(row["value"])
        else f"{r.title}: {UNDEFINED}"
        for r, row in rows
    ]
    percentile = np.array([row["percentile"] for _, row in rows], float)
    marks = [QUALITATIVE[5] if abs(p - 50) >= 40 else colours["muted"] for p in np.nan_to_num(percentile, nan=50)]
    sides = ["middle left" if p < 50 else "middle right" for p in percentile]
    figure = go.Figure(
        [
            go.Bar(
                x=percentile - 50, base=50, y=labels, orientation="h", width=0.16, marker={"color": marks},
                hoverinfo="skip", showlegend=False,
            ),
            go.Scatter(
                x=percentile, y=labels, mode="markers+text", marker={"color": marks, "size": 11}, hovertext=words,
                text=[number(row["value"]) for _, row in rows], textposition=sides, cliponaxis=False,
                hovertemplate="%{hovertext}<extra></extra>", showlegend=False,
            ),
        ]
    )  # fmt: skip
    figure.add_vline(x=50, line={"color": colours["border"], "width": 1})
    figure.update_xaxes(range=[-10, 110], tickvals=[0, 10, 50, 90, 100], title_text="percentile among heads")
    figure.update_yaxes(automargin=True, showgrid=False)
    figure.update_layout(
        template=template(scheme),
        title={"text": f"<b>{name}</b>: rank in every reading", "x": 0, "xref": "paper", "font": {"size": 15}},
        height=96 + 30 * max(len(rows), 1),
        margin={"l": 12, "r": 20, "t": 44, "b": 44},
    )
    return figure
