"""Atlas: every head of a model at once, coloured by any reading; the table twin, the top heads and the chosen head."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from ...data.baselines import KINDS
from ...data.errors import UserError
from ...data.store import Run
from ..atlas_controls import (
    FLIP,
    LIMITS,
    MINUS,
    MOST_TOP,
    NEXT,
    PART,
    PART_FRAME,
    PREVIOUS,
    PROBE,
    RUN,
    STRATUM,
    TOP,
    TOWER,
    VIEW,
    asked,
    controls_row,
    place_inputs,
    read_query,
)
from ..chosen import chosen_head
from ..controls import aria, figure, page, panel, problem, reading_card, run_badges
from ..export import EXPORT, export_menu, python_for
from ..heatmap import atlas_figure, empty_figure
from ..layers import layers_figure
from ..multiples import multiples_figure
from ..pickers import run_picker, shown_if
from ..reading import Frame, Reading
from ..readings import parts_of, shape_of
from ..state import current_run, current_store, edits_of, head_readings, heads_table, link, plain
from ..theme import scheme_of
from ..twin import columns_of, rows_of, table_twin
from ..wording import place_words, summary

GRAPH, TABLE, CARD, CHOSEN, HEAD = "atlas-graph", "atlas-table", "atlas-card", "atlas-chosen", "atlas-head"
MARKED = "atlas-heads"
PYTHON, DOWNLOAD = "atlas-python", "atlas-download"


def layout(run: Any = None, **query: Any) -> html.Div:
    """The atlas of the run in the URL, or what was expected instead."""
    try:
        opened = current_run(plain(run))
        table = heads_table(opened)
        view = read_query(opened, table, query)
    except UserError as error:
        return problem(error)
    return atlas_page(opened, table, view)


def atlas_page(run: Run, table: Frame, view: dict[str, Any]) -> html.Div:
    """Heading, controls, card, then the picture beside the chosen head and the table."""
    layers, heads, _ = shape_of(run, view["tower"])
    grid_facts = {"data-layers": layers, "data-heads": heads, "data-page": "atlas", "tabIndex": 0}
    label: Any = {"function": "topLabel"}
    top = dmc.Slider(id=TOP, min=0, max=MOST_TOP, value=view["top"], size="sm", label=label, className="ha-top")
    side = [
        panel(html.Div(id=CHOSEN, **aria(live="polite")), label="Selected head", className="ha-chosen"),
        panel(
            html.Div([html.Span(id=f"{TOP}-words", className="ha-label"), top], className="ha-top-row"),
            table_twin(TABLE),
            label="Table of heads",
            className="ha-flush ha-grow",
        ),
    ]
    return page(
        "Atlas",
        controls_row(run, table, view),
        html.Div(
            [
                html.Div(
                    [
                        panel(html.Div(id=CARD), label="What this reading is", className="ha-reading"),
                        panel(
                            figure(GRAPH, label="Atlas of heads, arrow keys move", height=500, **grid_facts),
                            label="Atlas",
                        ),
                    ],
                    className="ha-column",
                ),
                html.Div(side, className="ha-column ha-side"),
            ],
            className="ha-split",
        ),
        dcc.Store(id=HEAD, data=view["head"]),
        dcc.Store(id=MARKED, data=",".join(view["heads"])),
        dcc.Store(id=PYTHON),
        dcc.Download(id=DOWNLOAD),
        html.Div(id="atlas-synced", hidden=True),
        html.Div(id="atlas-exported", hidden=True),
        html.Div(id="atlas-moved", hidden=True),
        aside=[
            *marked_badge(run, view),
            *edits_badge(run),
            *run_badges(run),
            run_picker(RUN, current_store(), run.id),
            export_menu(),
        ],
    )


def edits_badge(run: Run) -> list[Any]:
    """The way to the edits of this run's model, where there are any."""
    count = len(edits_of(run))
    words = f"{count} edit{'' if count == 1 else 's'}"
    title = "Edits that were made on this run's model, those of heads that it chose first"
    return [dcc.Link(words, href=link("/edits", run=run.id), className="ha-badge ha-baseline", title=title)][:count]


def marked_badge(run: Run, view: dict[str, Any]) -> list[Any]:
    """How many heads are framed because the URL names them, and the way to take the frames off."""
    count = len(view["heads"])
    rest = {name: view[name] for name in ("probe", "part", "stratum", "tower")}
    words = [f"{count} head{'' if count == 1 else 's'} framed ", html.Span("×", **aria(hidden="true"))]
    title = f"{', '.join(view['heads'])}: take the frames off"
    href = link("/atlas", run=run.id, **rest)
    return [dcc.Link(words, href=href, className="ha-badge ha-baseline ha-marked", title=title)][:count]


def offer_parts(probe: str, part: str | None, run: str) -> tuple[list[str], str, str]:
    """The parts of a newly chosen reading, the one that stays chosen, and whether there is a choice."""
    parts = parts_of(heads_table(current_run(run)), probe) or [""]
    return parts, (part if part in parts else parts[0]), shown_if(len(parts) > 1)


def draw(
    place: dict[str, Any], limits: Any, flip: bool, view: str, top: int, scheme: str, head: str | None, marked: str = ""
) -> Any:
    """The figure, its height, and what it shows in words."""
    framed = marked.split(",") if marked else []
    look: Any = {"scheme": scheme_of(scheme), "flip": bool(flip), "selected": head, "marked": framed}
    try:
        run, reading = asked(**place)
    except UserError as error:
        return empty_figure(str(error), scheme=look["scheme"]), {"height": 240}, str(error)
    if view == "all":
        readings = head_readings(run, reading.stratum, reading.tower, reading.minus)
        drawn: Any = multiples_figure(readings, limits=limits, top=top, **look)
        words = all_words(len(readings), reading)
    elif reading.of_layers:
        drawn = layers_figure(reading, scheme=look["scheme"], flip=look["flip"])
        words = summary(reading)
    else:
        drawn = atlas_figure(reading, limits=limits, top=top, **look)
        words = summary(reading)
    return drawn, {"height": drawn.layout.height}, words


def all_words(count: int, reading: Reading) -> str:
    """The sentence under all readings together, at the place of the one that is chosen."""
    less = f" less {KINDS[reading.minus]}" if reading.minus else ""
    return (
        f"{count} readings{less} {place_words(reading.stratum)}, each on its own colour range; "
        "click a cell to select its head and its reading."
    )


def describe(place: dict[str, Any], top: int) -> Any:
    """The card of the reading, the table of its heads with how many they are, and the Python that draws it."""
    try:
        run, reading = asked(**place)
    except UserError as error:
        return html.P(str(error)), [], dash.no_update, "", ""
    of = "layers" if reading.of_layers else "heads"
    words = f"Top {top} of {reading.ranked} {of}" if top else f"All {reading.ranked} {of}"
    python = python_for(run, reading, top)
    return reading_card(reading), rows_of(reading, top), columns_of(reading), words, python


def show_chosen(place: dict[str, Any], head: str | None) -> Any:
    """The panel of the selected head."""
    try:
        return chosen_head(*asked(**place), head)
    except UserError as error:
        return html.P(str(error))


def download(place: dict[str, Any], clicks: int) -> Any:
    """The whole table of the reading as a file."""
    run, reading = asked(**place)
    minus = f"-minus-{reading.minus}" if reading.minus else ""
    return dcc.send_data_frame(reading.table.to_csv, f"{run.id}-{reading.probe}{minus}.csv", index=False)


def register(app: Dash) -> None:
    """The page, and which change calls what."""
    dash.register_page(
        __name__, path="/atlas", name="Atlas", title="Atlas · headatlas", order=1, layout=layout, icon="atlas"
    )
    app.callback(
        Output(PART, "data"), Output(PART, "value"), Output(PART_FRAME, "className"),
        Input(PROBE, "value"), State(PART, "value"), State(RUN, "value"), prevent_initial_call=True,
    )(offer_parts)  # fmt: skip
    app.callback(
        Output(GRAPH, "figure"), Output(GRAPH, "style"), Output(f"{GRAPH}-caption", "children"),
        inputs={
            "place": place_inputs(), "limits": Input(LIMITS, "value"), "flip": Input(FLIP, "checked"),
            "view": Input(VIEW, "value"), "top": Input(TOP, "value"), "scheme": Input("scheme", "data"),
            "head": State(HEAD, "data"), "marked": State(MARKED, "data"),
        },
    )(draw)  # fmt: skip
    app.callback(
        Output(CARD, "children"), Output(TABLE, "rowData"), Output(TABLE, "columnDefs"),
        Output(f"{TOP}-words", "children"), Output(PYTHON, "data"),
        inputs={"place": place_inputs(), "top": Input(TOP, "value")},
    )(describe)  # fmt: skip
    app.callback(Output(CHOSEN, "children"), inputs={"place": place_inputs(), "head": Input(HEAD, "data")})(show_chosen)
    app.callback(
        Output(DOWNLOAD, "data"),
        inputs={"place": place_inputs(State), "clicks": Input({"type": EXPORT, "kind": "csv"}, "n_clicks")},
        prevent_initial_call=True,
    )(download)
    client_callbacks(app)


def client_callbacks(app: Dash) -> None:
    """What needs no server: picking a head, the URL, the step buttons, the export menu."""
    app.clientside_callback(
        ClientsideFunction("headatlas", "pickHead"),
        Output(HEAD, "data"), Output(PROBE, "value"),
        Input(GRAPH, "clickData"), Input(TABLE, "cellClicked"), State(HEAD, "data"), State(VIEW, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "syncUrl"),
        Output("atlas-synced", "children"),
        Input(PROBE, "value"), Input(PART, "value"), Input(STRATUM, "value"), Input(TOWER, "value"),
        Input(HEAD, "data"), Input(TOP, "value"), Input(LIMITS, "value"), Input(VIEW, "value"), Input(FLIP, "checked"),
        Input(MINUS, "value"), State(MARKED, "data"), State(RUN, "value"),
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "changeRun"),
        Output("atlas-moved", "children"),
        Input(RUN, "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("headatlas", "stepProbe"),
        Output(PROBE, "value", allow_duplicate=True),
        Input(PREVIOUS, "n_clicks"), Input(NEXT, "n_clicks"), State(PROBE, "value"),
        State(PROBE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "exportView"),
        Output("atlas-exported", "children"),
        *[Input({"type": EXPORT, "kind": kind}, "n_clicks") for kind in ("link", "python", "png", "svg")],
        State(PYTHON, "data"), State(PROBE, "value"), prevent_initial_call=True,
    )  # fmt: skip
