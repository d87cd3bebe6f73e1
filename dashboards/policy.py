"""A score along the share of the cache that a policy keeps, by a reading and at random."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from ..data.errors import UserError
from .theme import COLOURS, QUALITATIVE, Scheme, template


def policy_figure(curve: pd.DataFrame, score: str | None = None, *, scheme: Scheme = "light") -> go.Figure:
    """One score of a `policy_curve` over the share of the cache kept, with intervals; by default the first score.

    Bars are 95 % intervals over prompts; the band holds single random policies from the lowest to the highest.
    """
    known = list(dict.fromkeys(curve["score"]))
    score = known[0] if score is None else score
    if score not in known:
        raise UserError(f"the curve has no score {score!r}; it has {', '.join(known)}")
    rows = curve.loc[curve["score"] == score, :].sort_values("cache")
    figure = go.Figure()
    for order, colour, name in (
        ("random", COLOURS[scheme]["muted"], ""),
        ("reading", QUALITATIVE[5], "by the reading"),
    ):
        here = rows.loc[rows["order"] == order, :]
        if order == "random":
            sets = int(here["sets"].max())
            name = f"at random, mean of {sets}"
            _band(figure, here, colour)
        figure.add_scatter(
            x=here["cache"], y=here["mean"], mode="lines+markers", name=name,
            line={"color": colour, "width": 2, "dash": "dot" if order == "random" else "solid"}, marker={"size": 8},
            cliponaxis=False,
            error_y={
                "type": "data", "symmetric": False, "array": here["ci_high"] - here["mean"],
                "arrayminus": here["mean"] - here["ci_low"], "thickness": 1.2, "width": 4,
            },
            customdata=here[["full", "ci_low", "ci_high", "n"]],
            hovertemplate="%{y:.3f} (%{customdata[1]:.3f} .. %{customdata[2]:.3f}), n %{customdata[3]}<br>"
                          "cache %{x:.3f}, full KV heads %{customdata[0]:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="share of the cache kept", range=[0, 1.03])
    figure.update_yaxes(title_text=str(score).replace("_", " "), rangemode="tozero")
    figure.update_layout(
        template=template(scheme),
        height=420,
        title={"text": f"<b>Cache policies</b> · n {int(rows['n'].max())} prompts", "x": 0, "xref": "paper"},
        margin={"l": 60, "r": 16, "t": 76, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11.5}},
    )
    return figure


def _band(figure: go.Figure, rows: pd.DataFrame, colour: str) -> None:
    """From the lowest to the highest of single random policies."""
    for ends, fill in (("lowest", None), ("highest", "tonexty")):
        figure.add_scatter(
            x=rows["cache"], y=rows[ends], mode="lines", line={"width": 0, "color": colour}, fill=fill,
            fillcolor=f"rgba{(*hex_to_rgb(colour), 0.18)}", name="single random policies",
            showlegend=fill is not None, hoverinfo="skip",
        )  # fmt: skip
