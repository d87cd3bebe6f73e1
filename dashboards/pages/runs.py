"""Runs: every run of the store, live, with the command that finishes an unfinished one."""

from __future__ import annotations

from typing import Any

import dash
import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from ...data.baselines import kind_words, links_of
from ...data.command import resume_command
from ...data.store import Run
from ..controls import aria, copyable, first_steps, page, panel
from ..pickers import shown_if
from ..state import current_store
from ..theme import grid_options

TABLE, FILTER, TICK, UNFINISHED, COUNT = "runs-table", "runs-filter", "runs-tick", "runs-unfinished", "runs-count"
EMPTY, FRAME = "runs-empty", "runs-frame"
REFRESH_MS = 3000
TALL = 40
"""Above this many runs the table scrolls inside itself and draws only the visible rows."""

COLUMNS = [
    {"field": "model", "headerName": "Model", "cellRenderer": "RunLink", "minWidth": 300, "flex": 1.4},
    {"field": "data", "headerName": "Data", "minWidth": 170, "flex": 1.6, "tooltipField": "data"},
    {"field": "status", "headerName": "Status", "cellRenderer": "StatusBadge", "width": 116},
    {"field": "progress", "headerName": "Progress", "cellRenderer": "ProgressBar", "width": 118},
    {"field": "probes", "headerName": "Probes", "type": "rightAligned", "width": 84},
    {"field": "examples", "headerName": "Examples", "type": "rightAligned", "width": 106},
    {"field": "compute", "headerName": "Compute", "width": 116},
    {"field": "created", "headerName": "Created, UTC", "width": 160, "sort": "desc"},
    {
        "field": "run_id",
        "headerName": "Id",
        "minWidth": 120,
        "flex": 2.4,
        "cellClass": "ha-mono",
        "tooltipField": "run_id",
    },
]


def progress_of(header: dict[str, Any]) -> float:
    """The share of (chunk, probe) cells that are written, in percent; a finished run has all of them."""
    if header.get("status") == "done":
        return 100.0
    progress = header.get("progress") or {}
    done = progress.get("done") or {}
    cells = int(progress.get("chunks") or 0) * max(len(header.get("probes") or {}), 1)
    return round(100 * min(sum(done.values()) / cells, 1), 1) if cells else 0.0


def row_of(header: dict[str, Any]) -> dict[str, Any]:
    """A run as a row of plain values."""
    model, data, links = header.get("model") or {}, header.get("data") or {}, links_of(header)
    return {
        "run_id": str(header.get("run_id")),
        "model": str(model.get("name") or "?"),
        "baseline": kind_words(links[0]) if links else None,
        "parent": links[0]["run"] if links else None,
        "data": " · ".join(filter(None, [kind_said(header), str(data.get("spec") or data.get("name") or "?")])),
        "page": "/edits" if header.get("kind") == "edit" else "/atlas",
        "status": str(header.get("status") or "unreadable"),
        "progress": progress_of(header),
        "probes": len(header.get("probes") or {}),
        "examples": int(data.get("examples") or 0),
        "compute": ", ".join(str(header.get(key) or "?").removeprefix("torch.") for key in ("dtype", "device")),
        "created": str(header.get("created") or "")[:16].replace("T", " "),
    }


def kind_said(header: dict[str, Any]) -> str:
    """What kind of run this is where it is no plain `measure`: what was edited, or what was learned."""
    kind = str(header.get("kind") or "measure")
    return "" if kind == "measure" else str(header.get("said") or kind)


def headers(store: Any) -> list[dict[str, Any]]:
    """The headers of a store; a run whose header cannot be read keeps its id and says so."""
    found = []
    for row in store.runs().to_dict("records"):
        if row.get("status") == "unreadable":
            found.append({"run_id": row["run_id"], "status": "unreadable"})
        else:
            run = Run(store.path / row["run_id"])
            found.append({**run.header, "run_id": run.id, "status": run.status})
    return found


def listing(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All runs as rows, newest first."""
    return sorted((row_of(header) for header in found), key=lambda row: row["created"], reverse=True)


def unfinished(found: list[dict[str, Any]], store: str) -> list[Any]:
    """One line per unfinished run with its resume command."""
    waiting = [header for header in found if header.get("status") in {"interrupted", "failed"}]
    if not waiting:
        return []
    lines = []
    for header in waiting:
        reason = f": {header['error']}" if header.get("error") else ""
        words = f"{row_of(header)['model']}, {header['status']} at {int(progress_of(header))} %{reason}"
        lines += [html.P(words), copyable(resume_command(header, store))]
    title = html.H2("Finish what is missing")
    note = html.P("The same command measures only the missing cells.", className="ha-muted")
    return [panel(title, note, *lines, className="ha-unfinished")]


def table(rows: list[dict[str, Any]]) -> dag.AgGrid:
    """The grid of runs."""
    return dag.AgGrid(
        id=TABLE,
        rowData=rows,
        columnDefs=COLUMNS,
        defaultColDef={"sortable": True, "resizable": True, "suppressHeaderMenuButton": True},
        getRowId="params.data.run_id",
        dashGridOptions={
            **grid_options(),
            "rowHeight": 44,
            "headerHeight": 40,
            "domLayout": "autoHeight" if len(rows) <= TALL else "normal",
            "tooltipShowDelay": 400,
        },
        className="ha-grid",
        style={"height": None if len(rows) <= TALL else "calc(100vh - 170px)"},
    )


def layout(**_query: Any) -> html.Div:
    """The page, read from the store at every visit."""
    store = current_store()
    found = headers(store)
    rows = listing(found)
    search = dmc.TextInput(id=FILTER, placeholder="Filter runs", w=260, size="sm", **aria(label="Filter runs"))
    return page(
        "Runs",
        html.Div(first_steps(str(store.path)), id=EMPTY, className=shown_if(not rows)),
        html.Div(panel(table(rows), label="Runs", className="ha-flush"), id=FRAME, className=shown_if(bool(rows))),
        html.Div(unfinished(found, str(store.path)), id=UNFINISHED),
        dcc.Interval(id=TICK, interval=REFRESH_MS),
        aside=[html.Span(id=COUNT, className="ha-muted"), search],
    )


def register(app: Dash) -> None:
    """The page and its callbacks."""
    dash.register_page(__name__, path="/", name="Runs", title="Runs · headatlas", order=0, layout=layout, icon="runs")

    @app.callback(
        Output(TABLE, "rowData"), Output(UNFINISHED, "children"),
        Output(EMPTY, "className"), Output(FRAME, "className"),
        Input(TICK, "n_intervals"), State(TABLE, "rowData"), prevent_initial_call=True,
    )  # fmt: skip
    def refresh(_ticks: int, shown: list[dict[str, Any]]) -> Any:
        store = current_store()
        found = headers(store)
        rows = listing(found)
        if rows == shown:
            raise PreventUpdate
        return rows, unfinished(found, str(store.path)), shown_if(not rows), shown_if(bool(rows))

    @app.callback(Output(COUNT, "children"), Input(TABLE, "rowData"))
    def say_count(rows: list[dict[str, Any]]) -> str:
        return f"{len(rows)} run{'' if len(rows) == 1 else 's'}"

    app.clientside_callback(
        "(text, options) => ({...options, quickFilterText: text || ''})",
        Output(TABLE, "dashGridOptions"),
        Input(FILTER, "value"),
        State(TABLE, "dashGridOptions"),
        prevent_initial_call=True,
    )
