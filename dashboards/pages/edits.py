"""Edits: what became of a task when some heads were edited, beside random heads and all the others; and head budgets,
what becomes of it as more and more heads are edited."""

from __future__ import annotations

from typing import Any

import dash
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from ...data.budget import Budget
from ...data.causal import CausalReport
from ...data.errors import UserError
from ...data.reports import ReportCard, budgets_in, find_report, reports_in
from ...data.store import Run
from ..budget import budget_figure
from ..budgeted import budget_card, budget_in, budget_sentence, budget_table
from ..causal import causal_figure, height_of
from ..causal_words import causal_sentence
from ..controls import copyable, figure, page, panel, problem, run_badges
from ..edit_picker import edit_picker, groups_of
from ..edit_table import edit_table
from ..edited import edit_commands, edited_card, measured_run
from ..export import EXPORT, export_menu, python_for_budget, python_for_report
from ..state import current_run, current_store, edits_of, link, plain, report_in
from ..theme import scheme_of

RUN, EDIT, GRAPH, TABLE, CARD = "edits-run", "edits-edit", "edits-graph", "edits-table", "edits-card"
PYTHON, DOWNLOAD = "edits-python", "edits-download"


def layout(run: Any = None, edit: Any = None, **_query: Any) -> html.Div:
    """The report or budget in the URL; of a run the first of its model's edits, else the latest of the store."""
    try:
        store, wanted = current_store(), plain(edit)
        of = current_run(plain(run)) if plain(run) else None
        reports, budgets = reports_in(store.path), budgets_in(store.path)
        found = edits_of(of) if of else [*reports, *budgets]
        if not wanted and not found:
            return none_yet(of, len(reports) + len(budgets))
        chosen = store.run(wanted).id if wanted else found[0].id
        groups = groups_of(reports, budgets)
        if chosen in {one.id for one in budgets}:
            return budget_page(chosen, groups, of)
        card = find_report(reports, chosen)
        measured = of if of and of.header.get("kind") != "edit" else measured_run(card, store)
        return report_page(card, groups, measured)
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


def report_page(card: ReportCard, groups: list[Any], run: Run | None) -> html.Div:
    """A causal report: the table and the picture beside what was edited."""
    store = current_store()
    report = report_in(store, card)
    python, height = python_for_report(store.path, card.id), height_of(report, title=False)
    parts = edit_table(TABLE, report), edited_card(card, run, report.left_out)
    return edits_page(card.id, groups, run, *parts, shown=report.runs["unedited"], python=python, height=height)


def budget_page(chosen: str, groups: list[Any], run: Run | None) -> html.Div:
    """A head budget: the readings and their curves beside what was edited."""
    budget = budget_in(current_store(), chosen)
    python, parts = python_for_budget(budget.run), (budget_table(TABLE, budget), budget_card(budget))
    return edits_page(chosen, groups, run, *parts, shown=budget.run, python=python, height=500)


def edits_page(
    chosen: str, groups: list[Any], run: Run | None, table: Component, card: Component, *, shown: Run, python: str,
    height: int,
) -> html.Div:  # fmt: skip
    """Table and picture beside the card, under the picker."""
    return page(
        "Edits",
        html.Div(
            [
                html.Div(
                    [
                        panel(table, label="Table of scores", className="ha-flush"),
                        panel(figure(GRAPH, label="Scores", height=height), label="Scores"),
                    ],
                    className="ha-column",
                ),
                html.Div(
                    panel(html.Div(card, id=CARD), label="What was edited", className="ha-edited"),
                    className="ha-column ha-side",
                ),
            ],
            className="ha-split",
        ),
        dcc.Store(id=RUN, data=run.id if run else None),
        dcc.Store(id=PYTHON, data=python),
        dcc.Download(id=DOWNLOAD),
        *[html.Div(id=f"edits-{name}", hidden=True) for name in ("synced", "exported", "moved")],
        aside=[*run_badges(shown), edit_picker(EDIT, chosen, groups, run), export_menu()],
    )


def draw(scheme: str, narrow: bool | None, edit: str) -> Any:
    """The picture, its height, and what it says first in words."""
    look: Any = {"title": False, "scheme": scheme_of(scheme), "narrow": bool(narrow)}
    found = what_is(edit)
    if isinstance(found, Budget):
        drawn: Any = budget_figure(found, **look)
        return drawn, {"height": drawn.layout.height}, budget_sentence(found)
    drawn = causal_figure(found, **look)
    return drawn, {"height": drawn.layout.height}, causal_sentence(found)


def what_is(edit: str) -> Budget | CausalReport:
    """The numbers of the budget or the report that the picker names."""
    store = current_store()
    if edit in {one.id for one in budgets_in(store.path)}:
        return budget_in(store, edit)
    return report_in(store, find_report(reports_in(store.path), edit))


def download(clicks: int, edit: str) -> Any:
    """The whole table of the report, or the curves of the budget, as a file."""
    found = what_is(edit)
    table, name = (found.curves, "budget") if isinstance(found, Budget) else (found.table, "report")
    return dcc.send_data_frame(table.to_csv, f"{edit}-{name}.csv", index=False)


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
