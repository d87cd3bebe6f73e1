"""The table twin of the atlas: the same numbers as the picture, sortable, one row per head."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag

from ..data.ranking import records
from .reading import Reading
from .theme import grid_options

RELIABILITY = "Split-half rank reliability of this reading over heads; the same for every head"
COLUMNS: list[dict[str, Any]] = [
    {"field": "rank", "headerName": "#", "headerTooltip": "Rank, 1 is the highest value", "flex": 56, "sort": "asc"},
    {"field": "name", "headerName": "Head", "flex": 72, "comparator": {"function": "byHead"}, "cellClass": "ha-strong"},
    {"field": "value", "headerName": "Value", "flex": 64},
    {"field": "low", "headerName": "Low", "flex": 62, "headerTooltip": "Low end of the 95 % interval"},
    {"field": "high", "headerName": "High", "flex": 62, "headerTooltip": "High end of the 95 % interval"},
    {"field": "n", "headerName": "n", "flex": 44, "headerTooltip": "Independent prompts with a value"},
    {"field": "reliability", "headerName": "Reliab.", "flex": 68, "headerTooltip": RELIABILITY},
]
SIZE = "Rank by the size of the difference, of either sign"
EFFECT = "Standard deviations of the baseline's heads from their mean to this head's mean"
Q = "Benjamini-Hochberg adjusted p of a sign-flip test of the difference, over all heads shown"
COMPARED: list[dict[str, Any]] = [
    {**COLUMNS[0], "headerTooltip": SIZE, "flex": 44},
    {**COLUMNS[1], "flex": 56},
    {"field": "value", "headerName": "Diff.", "headerTooltip": "Mean of the run less that of the baseline", "flex": 62},
    *({**one, "flex": 60} for one in COLUMNS[3:5]),
    {"field": "effect", "headerName": "Effect", "headerTooltip": EFFECT, "flex": 68},
    {"field": "q", "headerName": "q", "headerTooltip": Q, "flex": 70},
]
FORMATS = dict.fromkeys(("value", "low", "high", "reliability"), "fourFigures(params.value)")
FORMATS |= {"effect": "threeFigures(params.value)", "q": "smallShare(params.value)"}
for _column in [*COLUMNS, *COMPARED]:
    if _column["field"] != "name":
        _column |= {"type": "rightAligned", "comparator": {"function": "emptyLast"}}
    if _column["field"] in FORMATS:
        _column["valueFormatter"] = {"function": FORMATS[_column["field"]]}


def table_twin(identifier: str) -> dag.AgGrid:
    """The same numbers as the picture, one row per head."""
    return dag.AgGrid(
        id=identifier,
        rowData=[],
        columnDefs=COLUMNS,
        defaultColDef={"sortable": True, "resizable": False, "suppressHeaderMenuButton": True, "suppressMovable": True},
        getRowId="params.data.name",
        dashGridOptions={**grid_options(), "rowHeight": 30, "headerHeight": 34},
        className="ha-grid ha-table-twin",
        style={"height": None},
    )


def rows_of(reading: Reading, top: int) -> list[dict[str, Any]]:
    """The table twin: all heads, or the top ones; undefined values are empty cells."""
    table = reading.top(top) if top else reading.table
    return records(table[[column["field"] for column in columns_of(reading)]])


def columns_of(reading: Reading) -> list[dict[str, Any]]:
    """The columns of the table twin; those of a comparison where a baseline is subtracted."""
    return COMPARED if reading.minus else COLUMNS
