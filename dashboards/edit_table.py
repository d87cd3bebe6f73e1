"""The table of a causal report: a row a score, the numbers of its picture side by side."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag

from ..data.causal import CHOSEN, RANDOM, UNEDITED, CausalReport
from ..data.ranking import records
from .reading import Frame
from .theme import grid_options
from .wording import signed_interval

EFFECT = (
    "From the mean of the random sets' differences to this one, in standard deviations of sets and prompts together; "
    "none below 5 random sets or 5 prompts"
)
PAIRED = "Edited less unedited, paired by prompt"
COLUMNS: list[dict[str, Any]] = [
    {
        "field": "score",
        "headerName": "Score",
        "width": 156,
        "pinned": "left",
        "cellClass": "ha-strong",
        "tooltipField": "formula",
    },
    {"field": "unedited", "headerName": "Unedited", "flex": 74, "minWidth": 88},
    {"field": "edited", "headerName": "Edited", "flex": 74, "minWidth": 88},
    {"field": "difference", "headerName": "Difference", "headerTooltip": PAIRED, "flex": 80, "minWidth": 96},
    {
        "field": "interval",
        "headerName": "95 % interval",
        "headerTooltip": f"Of the difference. {PAIRED}",
        "flex": 150,
        "minWidth": 150,
    },
    {
        "field": "random",
        "headerName": "Random",
        "headerTooltip": "Mean of the random sets of as many heads",
        "flex": 74,
        "minWidth": 84,
    },
    {
        "field": "effect",
        "headerName": "Effect",
        "headerTooltip": EFFECT,
        "tooltipField": "no_effect",
        "flex": 62,
        "minWidth": 74,
    },
    {"field": "n", "headerName": "n", "headerTooltip": "Independent prompts", "flex": 44, "minWidth": 48},
]
FORMATS = {name: "fourFigures(params.value)" for name in ("unedited", "edited", "random")} | {
    "difference": "signedFigures(params.value)",
    "effect": "signedEffect(params.value)",
}


def edit_table(identifier: str, report: CausalReport) -> dag.AgGrid:
    """The numbers of the picture."""
    return grid(identifier, records(rows_of(report)), COLUMNS, FORMATS)


def grid(identifier: str, rows: list[Any], columns: list[dict[str, Any]], formats: dict[str, str]) -> dag.AgGrid:
    """A dense table, a row a `name`; its first column stays in sight, the others are numbers and intervals."""
    numbers = []
    for column in columns[1:]:
        made = {"type": "rightAligned", **column}
        if column["field"] != "interval":
            made["comparator"] = {"function": "emptyLast"}
        if column["field"] in formats:
            made["valueFormatter"] = {"function": formats[column["field"]]}
        numbers.append(made)
    return dag.AgGrid(
        id=identifier,
        rowData=rows,
        columnDefs=[columns[0], *numbers],
        defaultColDef={"sortable": True, "resizable": False, "suppressHeaderMenuButton": True, "suppressMovable": True},
        getRowId="params.data.name",
        dashGridOptions={
            **grid_options(), "rowHeight": 32, "headerHeight": 34, "domLayout": "autoHeight", "tooltipShowDelay": 400,
        },
        className="ha-grid ha-dense",
        style={"height": None},
    )  # fmt: skip


def rows_of(report: CausalReport) -> Frame:
    """name, score, formula, unedited, edited, difference, interval, random, effect, n, no_effect; a row a score."""
    table, cards = report.table, report.runs[UNEDITED].header["probes"]
    chosen = next((name for name in CHOSEN if name in report.runs), UNEDITED)
    wide = {name: table.loc[table["condition"] == name, :].set_index("score") for name in report.runs}
    own = wide[chosen]
    ends = [signed_interval(float(low), float(high)) for low, high in zip(own["ci_low"], own["ci_high"], strict=True)]
    return own.assign(
        name=own.index,
        formula=[cards[name].get("formula") for name in own.index],
        unedited=wide[UNEDITED]["mean"],
        edited=own["mean"],
        interval=ends,
        random=wide[RANDOM]["mean"] if RANDOM in wide else float("nan"),
    ).assign(score=[cards[name].get("title") or name for name in own.index])[
        [
            *("name", "score", "formula", "unedited", "edited", "difference", "interval", "random", "effect", "n"),
            "no_effect",
        ]
    ]
