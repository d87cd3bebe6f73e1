"""Head: everything a run says about one head, the most telling reading first, with the examples behind it."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from ...data.errors import UserError
from ...data.heads import head_name, parse_head
from ...data.store import Run
from ..chosen import kv_group
from ..controls import badge, facts, figure, icon, page, panel, percentile_bar, problem, run_badges
from ..distribution import distribution_figure, strata_figure
from ..evidence import band_table, course_sentence, over_strata, sentence, values_of
from ..pickers import run_picker, shown_if, stratum_picker, tower_picker
from ..reading import Frame, Reading, by_standing, row_in
from ..readings import check_probe, shape_of, strata_of
from ..state import (
    current_run,
    current_store,
    head_readings,
    heads_table,
    known_head,
    known_place,
    link,
    plain,
    reading_of,
)
from ..theme import scheme_of
from ..wording import FROM_WEIGHTS, UNDEFINED, interval, number

RUN, PROBE, STRATUM, TOWER, HEAD = "head-run", "head-probe", "head-stratum", "head-tower", "head-head"
GRAPH, LENGTHS, EXAMPLES = "head-graph", "head-lengths", "head-examples"


def key_of(reading: Reading) -> str:
    """How the open reading stands in the URL: `probe`, or `probe:part` where there are parts."""
    return f"{reading.probe}:{reading.part}" if reading.part else reading.probe


def reading_row(reading: Reading, name: str) -> dmc.AccordionItem:
    """One reading as a line that unfolds into its card."""
    row = row_in(reading, name)
    if row is None or not np.isfinite(row["value"]):
        words = UNDEFINED if row is not None else "not measured"
        parts = [html.Span(reading.title, className="ha-strong"), html.Span(words, className="ha-muted ha-wide")]
    else:
        parts = [
            html.Span(reading.title, className="ha-strong"),
            html.Span(number(row["value"]), className="ha-number"),
            html.Span(spread_of(reading, row), className="ha-number ha-muted"),
            html.Span(f"{int(row['n'])}", className="ha-number ha-muted"),
            html.Span(f"{int(row['rank'])} of {reading.ranked}", className="ha-number"),
            percentile_bar(row["percentile"]),
        ]
    body = [html.P(reading.card.get("summary") or ""), facts(reading.card)]
    control = dmc.AccordionControl(html.Div(parts, className="ha-reading-row"))
    return dmc.AccordionItem([control, dmc.AccordionPanel(body)], value=key_of(reading))


def spread_of(reading: Reading, row: Any) -> str:
    """The interval of a value, or that it is of the weights and has none."""
    return FROM_WEIGHTS if reading.of_weights else interval(row["low"], row["high"])


def neighbours(run: Run, name: str, stay: dict[str, Any], layers: int, heads: int) -> html.Div:
    """Links to the heads before and after, above and below; the keyboard presses the same links."""
    layer, head = parse_head(name)
    index = layer * heads + head
    steps = {
        "previous": (index - 1, "Previous head"),
        "next": (index + 1, "Next head"),
        "down": (index - heads, "Same head, layer below"),
        "up": (index + heads, "Same head, layer above"),
    }
    links = []
    for side, (target, words) in steps.items():
        if 0 <= target < layers * heads:
            href = link("/head", run=run.id, head=head_name(*divmod(target, heads)), **stay)
            mark: Any = {"data-step": side}
            links.append(html.Div(dcc.Link(icon(side), href=href, className="ha-step", title=words), **mark))
        else:
            links.append(html.Span(icon(side), className="ha-step ha-step-off", title=words))
    return html.Div(links, className="ha-steps")


def identity(run: Run, reading: Reading, name: str, stay: dict[str, Any]) -> html.Div:
    """Which head of which model this is."""
    layer, head = parse_head(name)
    said = [f"layer {layer} of {reading.layers}", f"head {head} of {reading.heads}", kv_group(reading, head)]
    if reading.tower and reading.tower != "text":
        said.append(f"{reading.tower} tower")
    model = (run.header.get("model") or {}).get("name", "?")
    return html.Div(
        [
            html.H1(name, className="ha-title"),
            neighbours(run, name, stay, reading.layers, reading.heads),
            html.Div(
                [html.Span(model, className="ha-strong"), *[badge(words) for words in said if words]],
                className="ha-facts-line",
            ),
        ],
        className="ha-identity",
    )


def layout(run: Any = None, head: Any = None, **query: Any) -> html.Div:
    """The head in the URL, or what was expected instead."""
    try:
        opened = current_run(plain(run))
        table = heads_table(opened)
        tower, stratum = known_place(table, query)
        layers, heads, _ = shape_of(opened, tower)
        name = known_head(head, layers, heads) or "L0H0"
        readings = by_standing(head_readings(opened, stratum, tower), name)
        if not readings:
            raise UserError(f"run {opened.id} reads whole layers alone; the atlas shows them")
        wanted = known_reading(opened, readings, query)
    except UserError as error:
        return problem(error)
    return head_page(opened, table, readings, name, wanted)


def known_reading(run: Run, readings: list[Reading], query: dict[str, Any]) -> Reading:
    """The reading a URL opens, the most extreme one when it names none."""
    named = plain(query.get("probe"))
    if named is None:
        return readings[0]
    probe, _, part = named.partition(":")
    check_probe(run, probe)
    part = part or plain(query.get("part")) or ""
    found = [r for r in readings if r.probe == probe and (r.part == part or not part)]
    if not found:
        keys = ", ".join(key_of(r) for r in readings)
        raise UserError(f"expected probe= to be one of {keys}; got {named!r} with part {part!r}")
    return found[0]


def head_page(run: Run, table: Frame, readings: list[Reading], name: str, opened: Reading) -> html.Div:
    """Identity, the list of readings, and the evidence of the open one."""
    stay = {"probe": key_of(opened), "stratum": opened.stratum, "tower": opened.tower}
    columns = ["Reading", "Value", "95 % interval", "n", "Rank", "Percentile"]
    header = html.Div([html.Span(words) for words in columns], className="ha-reading-row ha-reading-head")
    rows = dmc.Accordion(
        [reading_row(r, name) for r in readings], id=PROBE, value=key_of(opened), chevronPosition="left"
    )
    evidence = [
        panel(figure(GRAPH, label="Distribution over examples and over heads", height=340), label="Distribution"),
        html.Div(
            panel(figure(LENGTHS, label="Course over the strata", height=210), label="Strata"),
            className=shown_if(len(strata_of(table)) > 1),
        ),
    ]
    readings_and_examples = [
        panel(header, rows, label="Readings", className="ha-flush ha-readings"),
        panel(html.Div(id=EXAMPLES), label="Examples", className="ha-examples"),
    ]
    return page(
        identity(run, opened, name, stay),
        html.Div(
            [
                html.Div(readings_and_examples, className="ha-column"),
                html.Div(evidence, className="ha-column"),
            ],
            className="ha-split ha-split-even",
        ),
        dcc.Store(id=HEAD, data=name),
        html.Div(id="head-synced", hidden=True),
        html.Div(id="head-moved", hidden=True),
        aside=[
            *run_badges(run),
            stratum_picker(STRATUM, table, opened.stratum),
            tower_picker(TOWER, table, opened.tower),
            run_picker(RUN, current_store(), run.id),
        ],
    )


def show_evidence(key: str | None, scheme: str, run: str, name: str, stratum: str, tower: str) -> Any:
    """The pictures of the open reading with what they show in words, and its examples."""
    if not key:
        raise dash.exceptions.PreventUpdate
    opened, (probe, _, part) = current_run(run), key.partition(":")
    reading = reading_of(opened, probe, part, stratum, tower)
    values = values_of(opened, reading, name)
    course = over_strata(opened, reading, name)
    return (
        distribution_figure(reading, name, values["value"].to_numpy(float), scheme=scheme_of(scheme)),
        sentence(reading, name, values),
        strata_figure(course, reading, name, scheme=scheme_of(scheme)),
        course_sentence(course, reading, name),
        band_table(reading, values),
    )


def register(app: Dash) -> None:
    """The page, and which change calls what."""
    dash.register_page(
        __name__, path="/head", name="Head", title="Head · headatlas", order=2, layout=layout, icon="head"
    )
    app.callback(
        Output(GRAPH, "figure"), Output(f"{GRAPH}-caption", "children"),
        Output(LENGTHS, "figure"), Output(f"{LENGTHS}-caption", "children"), Output(EXAMPLES, "children"),
        Input(PROBE, "value"), Input("scheme", "data"),
        State(RUN, "value"), State(HEAD, "data"), State(STRATUM, "value"), State(TOWER, "value"),
    )(show_evidence)  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "syncUrl"),
        Output("head-synced", "children"),
        Input(HEAD, "data"), Input(PROBE, "value"), State(RUN, "value"), State(STRATUM, "value"), State(TOWER, "value"),
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "changePlace"),
        Output("head-moved", "children"),
        Input(RUN, "value"), Input(STRATUM, "value"), Input(TOWER, "value"), State(HEAD, "data"), State(PROBE, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
