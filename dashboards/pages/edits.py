"""Edits: what became of a task when some heads were edited, beside random heads and all the others."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import dash
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from ...data.causal import CausalReport
from ...data.errors import UserError
from ...data.reports import ReportCard, find_report, reports_in
from ...data.store import Run
from ..causal import causal_figure, height_of
from ..causal_words import causal_sentence
from ..controls import copyable, figure, icon, page, panel, problem, run_badges
from ..edit_table import edit_table
from ..edited import edit_commands, edited_card, measured_run, said_short
from ..export import EXPORT, export_menu, python_for_report
from ..pickers import picker
from ..state import current_run, current_store, edits_of, link, plain, report_in
from ..theme import scheme_of

RUN, EDIT, GRAPH, TABLE, CARD = "edits-run", "edits-edit", "edits-graph", "edits-table", "edits-card"
PYTHON, DOWNLOAD = "edits-python", "edits-download"


def layout(run: Any = None, edit: Any = None, **_query: Any) -> html.Div:
    """The report in the URL; of a run the first of its model's edits, else the latest of the store."""
    try:
        store, wanted = current_store(), plain(edit)
        of = current_run(plain(run)) if plain(run) else None
        reports = reports_in(store.path)
        found = edits_of(of) if of else reports
        if not wanted and not found:
            return none_yet(of, len(reports))
        card = find_report(reports, store.run(wanted).id) if wanted else found[0]
        measured = of if of and of.header.get("kind") != "edit" else measured_run(card, store)
        return edits_page(card, in_order(reports), measured, report_in(store, card))
    except UserError as error:
        return problem(error)


def none_yet(run: Run | None, others: int) -> html.Div:
    """What to type when nothing was edited yet, or nothing of the model of this run."""
    of = f" of {run.header['model']['name']}" if run else ""
    words = (
        "A reading is a claim; an edit tests it. This sets the four highest heads of a reading to their mean, and "
        "scores the task beside random heads and all the others:"
    )
    elsewhere = dcc.Link(f"All {others} edits of this store", href=link("/edits"), className="ha-button")
    commands = [copyable(one) for one in edit_commands(run, str(current_store().path))]
    body = [html.H2(f"No edits{of} yet"), html.P(words), *commands, html.Div(elsewhere if run and others else None)]
    return page("Edits", panel(*body, className="ha-first-steps"))


def in_order(reports: list[ReportCard]) -> list[ReportCard]:
    """Reports on the same prompts together, the group with the latest first."""
    latest: dict[str, int] = {}
    for place, card in enumerate(reports):
        latest.setdefault(card.base, place)
    return sorted(reports, key=lambda card: latest[card.base])


def edit_picker(card: ReportCard, reports: list[ReportCard], run: Run | None) -> html.Div:
    """The reports in groups of one unedited run, and a step to the one before and after."""
    groups = []
    for base, cards in groupby(reports, key=lambda one: one.base):
        members = list(cards)
        header = members[0].header
        name = (
            f"{header['model']['name']} · {header['data']['name']}, {header['data']['examples']} prompts · {base[-8:]}"
        )
        items = [{"value": one.id, "label": said} for one, said in zip(members, labels(members), strict=True)]
        groups.append({"group": name, "items": items})
    at = [one.id for one in reports].index(card.id)
    steps = [step(side, words, reports[at + by].id if 0 <= at + by < len(reports) else None, run)
             for side, words, by in (("previous", "Previous edit", -1), ("next", "Next edit", 1))]  # fmt: skip
    return html.Div([picker(EDIT, "Edit", groups, card.id, width=400), html.Div(steps, className="ha-steps")],
                    className="ha-joined")  # fmt: skip


def labels(cards: list[ReportCard]) -> list[str]:
    """The edits in a few words, with the end of the id where others read the same."""
    words = [said_short(one) for one in cards]
    count = Counter(words)
    return [said if count[said] == 1 else f"{said} · {one.id[-8:]}" for said, one in zip(words, cards, strict=True)]


def step(side: str, words: str, edit: str | None, run: Run | None) -> html.Span | html.Div:
    """A link to the edit before or after; the keyboard presses the same link."""
    if edit is None:
        return html.Span(icon(side), className="ha-step ha-step-off", title=words)
    href = link("/edits", run=run.id if run else None, edit=edit)
    mark: Any = {"data-step": side}
    return html.Div(dcc.Link(icon(side), href=href, className="ha-step", title=words), **mark)


def edits_page(card: ReportCard, reports: list[ReportCard], run: Run | None, report: CausalReport) -> html.Div:
    """The table and the picture beside what was edited."""
    height = height_of(report, title=False)
    store = current_store()
    return page(
        "Edits",
        html.Div(
            [
                html.Div(
                    [
                        panel(edit_table(TABLE, report), label="Table of scores", className="ha-flush"),
                        panel(figure(GRAPH, label="Scores by condition", height=height), label="Scores"),
                    ],
                    className="ha-column",
                ),
                html.Div(
                    panel(
                        html.Div(edited_card(card, run, report.left_out), id=CARD),
                        label="What was edited",
                        className="ha-edited",
                    ),
                    className="ha-column ha-side",
                ),
            ],
            className="ha-split",
        ),
        dcc.Store(id=RUN, data=run.id if run else None),
        dcc.Store(id=PYTHON, data=python_for_report(store.path, card.id)),
        dcc.Download(id=DOWNLOAD),
        *[html.Div(id=f"edits-{name}", hidden=True) for name in ("synced", "exported", "moved")],
        aside=[*run_badges(report.runs["unedited"]), edit_picker(card, reports, run), export_menu()],
    )


def draw(scheme: str, narrow: bool | None, edit: str) -> Any:
    """The picture, its height, and its first score in words."""
    report = report_of(edit)
    drawn: Any = causal_figure(report, title=False, scheme=scheme_of(scheme), narrow=bool(narrow))
    return drawn, {"height": drawn.layout.height}, causal_sentence(report)


def report_of(edit: str) -> CausalReport:
    """The numbers of the report that the picker names."""
    store = current_store()
    return report_in(store, find_report(reports_in(store.path), edit))


def download(clicks: int, edit: str) -> Any:
    """The whole table of the report as a file."""
    return dcc.send_data_frame(report_of(edit).table.to_csv, f"{edit}-report.csv", index=False)


def register(app: Dash) -> None:
    """The page, and which change calls what."""
    dash.register_page(
        __name__, path="/edits", name="Edits", title="Edits · headatlas", order=3, layout=layout, icon="edits"
    )
    app.callback(
        Output(GRAPH, "figure"), Output(GRAPH, "style"), Output(f"{GRAPH}-caption", "children"),
        Input("scheme", "data"), Input("narrow", "data"), State(EDIT, "value"),
    )(draw)  # fmt: skip
    app.callback(
        Output(DOWNLOAD, "data"),
        Input({"type": EXPORT, "kind": "csv"}, "n_clicks"), State(EDIT, "value"), prevent_initial_call=True,
    )(download)  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "syncUrl"), Output("edits-synced", "children"),
        Input(RUN, "data"), State(EDIT, "value"),  # once a page: `changeEdit` tells a choice by the URL's old edit
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "changeEdit"), Output("edits-moved", "children"),
        Input(EDIT, "value"), State(RUN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("headatlas", "exportView"), Output("edits-exported", "children"),
        *[Input({"type": EXPORT, "kind": kind}, "n_clicks") for kind in ("link", "python", "png", "svg")],
        State(PYTHON, "data"), State(EDIT, "value"), prevent_initial_call=True,
    )  # fmt: skip
