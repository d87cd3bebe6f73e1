"""Atlas: every head of a model at once, coloured by any reading; the table twin, the top heads and the chosen head."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from ...data.errors import UserError
from ...data.store import Run
from ..chosen import chosen_head
from ..controls import (
    figure,
    icon,
    only_if_many,
    page,
    panel,
    picker,
    problem,
    reading_card,
    run_badges,
    run_picker,
)
from ..export import EXPORT, export_menu, python_for
from ..heatmap import atlas_figure, empty_figure
from ..multiples import multiples_figure
from ..readings import Reading, cards, shape_of, strata_of
from ..state import (
    count,
    current_run,
    current_store,
    flag,
    heads_table,
    known_head,
    known_probe,
    one_of,
    plain,
    reading_of,
    readings_of,
)
from ..theme import scheme_of
from ..twin import rows_of, table_twin
from ..wording import stratum_text, summary

RUN, PROBE, PART, STRATUM, TOWER = "atlas-run", "atlas-probe", "atlas-part", "atlas-stratum", "atlas-tower"
LIMITS, FLIP, VIEW, TOP, HEAD = "atlas-limits", "atlas-flip", "atlas-view", "atlas-top", "atlas-head"
GRAPH, TABLE, CARD, CHOSEN, PYTHON = "atlas-graph", "atlas-table", "atlas-card", "atlas-chosen", "atlas-python"
DOWNLOAD = "atlas-download"
MOST_TOP = 50
LIMIT_CHOICES = {"full": "Full range", "robust": "Robust", "bounds": "Bounds"}
VIEW_CHOICES = {"one": "One reading", "all": "All readings"}


def grouped_probes(run: Run) -> list[dict[str, Any]]:
    """The probes of a run for the picker, family by family."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name, card in cards(run).items():
        family = str(card.get("family") or "other").replace("_", " ")
        groups.setdefault(family, []).append({"value": name, "label": str(card.get("title") or name)})
    return [{"group": family.capitalize(), "items": items} for family, items in groups.items()]


def switch(identifier: str, label: str, choices: dict[str, str], value: str) -> html.Div:
    """A small labelled switch between a few words."""
    data: Any = [{"value": key, "label": words} for key, words in choices.items()]
    control = dmc.SegmentedControl(id=identifier, data=data, value=value, size="xs", **{"aria-label": label})  # type: ignore[arg-type]
    return html.Div([html.Span(label, className="ha-label"), control], className="ha-switch")


def controls_row(run: Run, table: Any, view: dict[str, Any]) -> html.Div:
    """What is drawn: reading, part, stratum, tower; and how: one or all, colour range, direction."""
    strata, towers = strata_of(table), list(dict.fromkeys(table["tower"]))
    named = [{"value": s, "label": stratum_text(s)} for s in strata]
    step = [
        dmc.ActionIcon(icon(side), id=f"atlas-{side}", variant="default", size=36, **{"aria-label": f"{words} reading"})  # type: ignore[arg-type]
        for side, words in {"previous": "Previous", "next": "Next"}.items()
    ]
    parts = list(dict.fromkeys(table.loc[table["probe"] == view["probe"], "part"]))
    part = view["part"] if view["part"] in parts else parts[0]
    return html.Div(
        [
            html.Div(
                [
                    picker(PROBE, "Reading", grouped_probes(run), view["probe"], width=250),
                    html.Div(step, className="ha-steps"),
                ],
                className="ha-joined",
            ),
            html.Div(
                picker(PART, "Part", parts, part, width=150), id=f"{PART}-frame", className=hidden_unless_many(parts)
            ),
            only_if_many(picker(STRATUM, "Stratum", named, view["stratum"], width=170), strata),
            only_if_many(picker(TOWER, "Tower", towers, view["tower"], width=120), towers),
            html.Div(className="ha-spring"),
            switch(VIEW, "Show", VIEW_CHOICES, view["view"]),
            switch(LIMITS, "Colour", LIMIT_CHOICES, view["limits"]),
            dmc.Switch(id=FLIP, label="Layer 0 on top", checked=view["flip"], size="xs", className="ha-flip"),
        ],
        className="ha-controls",
    )


def hidden_unless_many(options: list[Any]) -> str:
    """The class of a picker that has nothing to choose from."""
    return "" if len(options) > 1 else "ha-hidden"


def read_query(run: Run, table: Any, query: dict[str, Any]) -> dict[str, Any]:
    """The view a URL asks for, every name checked against the run."""
    towers, strata = list(dict.fromkeys(table["tower"])), strata_of(table)
    probe = known_probe(run, query.get("probe"))
    tower = one_of("tower", query.get("tower"), towers, towers[0])
    parts = list(dict.fromkeys(table.loc[table["probe"] == probe, "part"])) or [""]
    return {
        "probe": probe,
        "tower": tower,
        "stratum": one_of("stratum", query.get("stratum"), strata, strata[0]),
        "part": one_of("part", query.get("part"), parts, parts[0]),
        "head": known_head(query.get("head"), *shape_of(run, tower)[:2]),
        "limits": one_of("limits", query.get("limits"), LIMIT_CHOICES, "full"),
        "view": one_of("view", query.get("view"), VIEW_CHOICES, "one"),
        "flip": flag(query.get("flip")),
        "top": count("top", query.get("top"), MOST_TOP),
    }


def layout(run: Any = None, **query: Any) -> html.Div:
    """The atlas of the run in the URL, or what was expected instead."""
    try:
        opened = current_run(plain(run))
        table = heads_table(opened)
        view = read_query(opened, table, query)
    except UserError as error:
        return problem(error)
    return atlas_page(opened, table, view)


def atlas_page(run: Run, table: Any, view: dict[str, Any]) -> html.Div:
    """Heading, controls, card, then the picture beside the chosen head and the table."""
    layers, heads, _ = shape_of(run, view["tower"])
    grid_facts = {"data-layers": layers, "data-heads": heads, "data-page": "atlas", "tabIndex": 0}
    label: Any = {"function": "topLabel"}
    top = dmc.Slider(id=TOP, min=0, max=MOST_TOP, value=view["top"], size="sm", label=label, className="ha-top")
    side = [
        panel(html.Div(id=CHOSEN, **{"aria-live": "polite"}), label="Selected head", className="ha-chosen"),  # type: ignore[arg-type]
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
        dcc.Store(id=PYTHON),
        dcc.Download(id=DOWNLOAD),
        html.Div(id="atlas-synced", hidden=True),
        html.Div(id="atlas-exported", hidden=True),
        html.Div(id="atlas-moved", hidden=True),
        aside=[*run_badges(run), run_picker(RUN, current_store(), run.id), export_menu()],
    )


def all_words(count: int, stratum: str) -> str:
    """The sentence under all readings together."""
    return (
        f"{count} readings at {stratum_text(stratum)}, each on its own colour range; "
        "click a cell to select its head and its reading."
    )


def register(app: Dash) -> None:
    """The page and its callbacks."""
    dash.register_page(
        __name__, path="/atlas", name="Atlas", title="Atlas · headatlas", order=1, layout=layout, icon="atlas"
    )
    place = [Input(PROBE, "value"), Input(PART, "value"), Input(STRATUM, "value"), Input(TOWER, "value")]

    def asked(run: str, probe: str, part: str | None, stratum: str, tower: str) -> tuple[Run, Reading]:
        opened = current_run(run)
        return opened, reading_of(opened, probe, part, stratum, tower)

    @app.callback(
        Output(PART, "data"), Output(PART, "value"), Output(f"{PART}-frame", "className"),
        Input(PROBE, "value"), State(PART, "value"), State(RUN, "value"), prevent_initial_call=True,
    )  # fmt: skip
    def offer_parts(probe: str, part: str | None, run: str) -> Any:
        table = heads_table(current_run(run))
        parts = list(dict.fromkeys(table.loc[table["probe"] == probe, "part"])) or [""]
        return parts, (part if part in parts else parts[0]), hidden_unless_many(parts)

    @app.callback(
        Output(GRAPH, "figure"), Output(GRAPH, "style"), Output(f"{GRAPH}-caption", "children"),
        *place, Input(LIMITS, "value"), Input(FLIP, "checked"), Input(VIEW, "value"), Input(TOP, "value"),
        Input("scheme", "data"), State(HEAD, "data"), State(RUN, "value"),
    )  # fmt: skip
    def draw(
        probe: str, part: str, stratum: str, tower: str, limits: Any, flip: bool, view: str, top: int, scheme: str,
        head: str | None, run: str,
    ) -> Any:  # fmt: skip
        look = {"scheme": scheme_of(scheme), "flip": bool(flip), "selected": head}
        try:
            opened, reading = asked(run, probe, part, stratum, tower)
        except UserError as error:
            return empty_figure(str(error), scheme=look["scheme"]), {"height": 240}, str(error)
        if view == "all":
            readings = readings_of(opened, stratum, tower)
            drawn = multiples_figure(readings, limits=limits, top=top, **look)
            words = all_words(len(readings), stratum)
        else:
            drawn = atlas_figure(reading, limits=limits, top=top, **look)
            words = summary(reading)
        return drawn, {"height": drawn.layout.height}, words  # type: ignore[attr-defined]

    @app.callback(
        Output(CARD, "children"), Output(TABLE, "rowData"), Output(f"{TOP}-words", "children"), Output(PYTHON, "data"),
        *place, Input(TOP, "value"), State(RUN, "value"),
    )  # fmt: skip
    def describe(probe: str, part: str, stratum: str, tower: str, top: int, run: str) -> Any:
        try:
            opened, reading = asked(run, probe, part, stratum, tower)
        except UserError as error:
            return html.P(str(error)), [], "", ""
        words = f"Top {top} of {reading.ranked} heads" if top else f"All {reading.ranked} heads"
        return reading_card(reading), rows_of(reading, top), words, python_for(opened, reading, top)

    @app.callback(Output(CHOSEN, "children"), Input(HEAD, "data"), *place, State(RUN, "value"))
    def show_chosen(head: str | None, probe: str, part: str, stratum: str, tower: str, run: str) -> Any:
        try:
            opened, reading = asked(run, probe, part, stratum, tower)
            return chosen_head(opened, reading, head)
        except UserError as error:
            return html.P(str(error))

    @app.callback(
        Output(DOWNLOAD, "data"), Input({"type": EXPORT, "kind": "csv"}, "n_clicks"),
        *[State(item.component_id, item.component_property) for item in place], State(RUN, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    def download(_clicks: int, probe: str, part: str, stratum: str, tower: str, run: str) -> Any:
        opened, reading = asked(run, probe, part, stratum, tower)
        return dcc.send_data_frame(reading.table.to_csv, f"{opened.id}-{probe}.csv", index=False)

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
        State(RUN, "value"),
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
        Input("atlas-previous", "n_clicks"), Input("atlas-next", "n_clicks"), State(PROBE, "value"),
        State(PROBE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "exportView"),
        Output("atlas-exported", "children"),
        *[Input({"type": EXPORT, "kind": kind}, "n_clicks") for kind in ("link", "python", "png", "svg")],
        State(PYTHON, "data"), State(PROBE, "value"), prevent_initial_call=True,
    )  # fmt: skip
