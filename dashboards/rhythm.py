"""The two series of a text over its tokens, with their peaks: where local heads look back, and what is read again."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.errors import UserError
from ..data.rhythm import rhythm
from ..data.store import Run
from .theme import COLOURS, QUALITATIVE, Scheme, template


def rhythm_figure(run: Run, example: int = 0, *, without_first: bool = False, scheme: Scheme = "light") -> go.Figure:
    """WAAD above FAI, token by token, of one example that the run keeps; peaks are marked, anchors are shaded."""
    found = rhythm(run, without_first=without_first)
    tokens = found.tokens[found.tokens["example"] == example]
    if tokens.empty:
        kept = sorted(set(found.tokens["example"]))
        raise UserError(f"example {example} is not kept token by token; run {run.id} keeps {kept[0]} to {kept[-1]}")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    rows = (
        ("waad", "waad_peak", "WAAD, tokens", QUALITATIVE[0], f"{len(found.local_heads)} local heads"),
        ("fai", "fai_peak", "FAI, mass", QUALITATIVE[5], f"{len(found.global_heads)} global heads"),
    )
    for row, (name, peak, title, colour, heads) in enumerate(rows, start=1):
        figure.add_scatter(
            x=tokens["position"], y=tokens[name], mode="lines", line={"color": colour, "width": 1.6}, name=heads,
            hovertemplate=f"token %{{x}}<br>{title} %{{y:.4g}}<extra></extra>", row=row, col=1,
        )  # fmt: skip
        at = tokens[tokens[peak]]
        figure.add_scatter(
            x=at["position"], y=at[name], mode="markers", marker={"color": colour, "size": 8},
            name=f"{name.upper()} peak",
            hovertemplate="peak at token %{x}: %{y:.4g}<extra></extra>", row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title_text=title, rangemode="tozero", nticks=5, row=row, col=1)
    for position in tokens.loc[tokens["fai_peak"], "position"]:
        figure.add_vline(x=int(position), line={"color": COLOURS[scheme]["border"], "width": 1})
    figure.update_xaxes(showgrid=False)
    figure.update_xaxes(title_text="token", row=2, col=1)
    less = ", first token left out" if without_first else ""
    figure.update_layout(
        template=template(scheme),
        height=420,
        title={"text": f"<b>Rhythm</b> of example {example}{less} · {run.id}", "x": 0, "xref": "paper"},
        margin={"l": 60, "r": 16, "t": 64, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11.5}},
    )
    return figure
