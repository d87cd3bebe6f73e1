"""The selected head beside the atlas: its value in the shown reading, and in which other readings it stands out."""

from __future__ import annotations

import math
from typing import Any

from dash import dcc, html

from ..data.baselines import KINDS
from ..data.heads import parse_head
from ..data.store import Run
from .controls import badge, capital, percentile_bar
from .reading import Reading, by_standing, row_in
from .state import head_readings, link
from .wording import (
    FROM_WEIGHTS,
    UNDEFINED,
    effect_text,
    interval,
    number,
    share,
    signed,
    signed_interval,
)

STANDS_OUT = 40
"""How far from the middle percentile a head must be to be named as standing out."""


def kv_group(reading: Reading, head: int) -> str | None:
    """The key-value head that a query head shares, where heads share one."""
    return f"KV group {head // reading.sharing}" if reading.sharing > 1 else None


def head_link(run: Run, reading: Reading, name: str) -> str:
    """The head page at the shown reading."""
    return link(
        "/head",
        run=run.id,
        head=name,
        probe=reading.probe,
        part=reading.part,
        stratum=reading.stratum,
        tower=reading.tower,
    )


def hint(reading: Reading) -> html.Div:
    """What to do when no head is selected, with the highest heads to start from."""
    best, written = reading.top(3), signed if reading.minus else number
    names = ", ".join(f"{row.name} {written(row.value)}" for row in best.itertuples(index=False))
    return html.Div(
        [
            html.H2("Whole layers" if reading.of_layers else "No head selected"),
            html.P("This reading is of what each layer leaves in the residual stream.", className="ha-muted")
            if reading.of_layers
            else html.P(
                ["Click a cell, or focus the atlas and use the arrow keys. ", html.Kbd("Enter"), " opens the head."],
                className="ha-muted",
            ),
            html.P([html.Span("Largest: " if reading.minus else "Highest: ", className="ha-muted"), names])
            if names
            else None,
        ]
    )


def standing_out(run: Run, reading: Reading, name: str) -> list[html.Li]:
    """The three readings in which this head stands out most, each a link to it."""
    readings = head_readings(run, reading.stratum, reading.tower)
    lines = []
    for other in by_standing(readings, name)[:3]:
        row = row_in(other, name)
        if row is not None and abs(row["percentile"] - 50) >= STANDS_OUT:
            words = f"{number(row['value'])}, rank {int(row['rank'])} of {other.ranked}"
            link_to = dcc.Link(other.title, href=head_link(run, other, name))
            lines.append(html.Li([link_to, html.Span(words, className="ha-muted")]))
    return lines


def difference(reading: Reading, row: Any) -> html.Div:
    """What the head shows, what the baseline shows, and how sure their difference is."""
    unit = f" ({reading.unit})" if reading.unit else ""
    pairs = [
        ("Mean", number(row["mean"])),
        (capital(KINDS[reading.minus]), number(row["baseline"])),
        ("95 % interval", signed_interval(row["low"], row["high"])),
        ("n", f"{int(row['n'])}"),
        ("Effect", effect_text(row["effect"])),
        ("q", share(row["q"])),
        ("Rank by size", f"{int(row['rank'])} of {reading.ranked}"),
    ]
    figure = html.Div([html.Strong(signed(row["value"])), html.Span(f"{reading.title}{unit}")], className="ha-value")
    return html.Div([figure, html.Dl([html.Div([html.Dt(a), html.Dd(b)]) for a, b in pairs], className="ha-pairs")])


def measures(reading: Reading, row: Any) -> html.Div:
    """Value, interval, n and rank of the head in the shown reading."""
    unit = f" ({reading.unit})" if reading.unit else ""
    pairs = [
        ("Read", FROM_WEIGHTS) if reading.of_weights else ("95 % interval", interval(row["low"], row["high"])),
        ("n", f"{int(row['n'])}"),
        ("Rank", f"{int(row['rank'])} of {reading.ranked}"),
        ("Percentile", f"{row['percentile']:.0f}"),
    ]
    figure = html.Div([html.Strong(number(row["value"])), html.Span(f"{reading.title}{unit}")], className="ha-value")
    return html.Div(
        [
            figure,
            html.Dl([html.Div([html.Dt(a), html.Dd(b)]) for a, b in pairs], className="ha-pairs"),
            percentile_bar(row["percentile"]),
        ]
    )


def chosen_head(run: Run, reading: Reading, name: str | None) -> html.Div:
    """The panel of the selected head."""
    if name is None or reading.of_layers:
        return hint(reading)
    _, head = parse_head(name)
    group = kv_group(reading, head)
    title = html.Div(
        [
            html.H2(name),
            badge(group) if group else None,
            dcc.Link(f"Open {name}", href=head_link(run, reading, name), id="atlas-open", className="ha-button"),
        ],
        className="ha-chosen-title",
    )
    row = row_in(reading, name)
    if row is None or not math.isfinite(row["value"]):
        words = UNDEFINED if row is not None else "not measured"
        return html.Div([title, html.P(f"{reading.title} is {words}.", className="ha-muted")])
    others = standing_out(run, reading, name)
    below = [html.H3("Stands out in"), html.Ul(others, className="ha-others")] if others else []
    shown = difference(reading, row) if reading.minus else measures(reading, row)
    return html.Div([title, shown, *below])
