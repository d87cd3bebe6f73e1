"""A head budget in words and numbers: what was edited in which orders, and how early each breaks the task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import dash_ag_grid as dag
from dash import html

from ..data.budget import SINGLE, Budget, stored_budget
from ..data.ranking import records
from ..data.store import Run, Store
from .causal_words import kind_words
from .edit_table import grid
from .edited import typed
from .wording import number, signed, signed_interval

AREA = "(Mean random score - score in the reading's order) over the share of heads edited; above 0: it finds them first"
CHANCE = "Share of random orders with as large an area"
HALF = "The fewest heads after which half of the effect is there"
NAMED = "Heads that the reading has values of; the others follow in random order"
COLUMNS: list[dict[str, Any]] = [
    {"field": "reading", "headerName": "Reading", "width": 186, "pinned": "left", "cellClass": "ha-strong",
     "tooltipField": "reading"},
    {"field": "area", "headerName": "Area", "headerTooltip": AREA, "flex": 70, "minWidth": 76},
    {"field": "interval", "headerName": "95 % interval", "headerTooltip": AREA, "flex": 150, "minWidth": 150},
    {"field": "chance", "headerName": "Chance", "headerTooltip": CHANCE, "flex": 74, "minWidth": 80},
    {"field": "to_half", "headerName": "To half", "headerTooltip": HALF, "flex": 74, "minWidth": 80},
    {"field": "named", "headerName": "Heads", "headerTooltip": NAMED, "flex": 66, "minWidth": 72},
    {"field": "n", "headerName": "n", "headerTooltip": "Independent prompts", "flex": 44, "minWidth": 48},
]  # fmt: skip
FORMATS = {"area": "signedFigures(params.value)", "chance": "fourFigures(params.value)"}


@lru_cache(maxsize=16)
def _budget(path: Path, _updated: str) -> Budget:
    return stored_budget(Run(path))


def budget_in(store: Store, run: str) -> Budget:
    """The numbers of a budget, computed once per state of its run."""
    return _budget(store.path / run, str(store.run(run).header.get("updated")))


def budget_table(identifier: str, budget: Budget) -> dag.AgGrid:
    """A row a reading, the best first."""
    ends = budget.scores[["ci_low", "ci_high"]].itertuples(index=False)
    rows = budget.scores.assign(interval=[signed_interval(low, high) for low, high in ends], name=budget.scores.reading)
    return grid(identifier, records(rows), COLUMNS, FORMATS)


def budget_words(header: Mapping[str, Any]) -> str:
    """The budget in a few words, for a picker: `mean · 5 readings · exact match on secrets`."""
    held, data = header["budget"], header["data"]
    readings = len(held["named"])
    count = f"{readings} reading{'' if readings == 1 else 's'}"
    score = str(held["score"]).replace("_", " ")
    return f"{kinds_of(header)} · {count} · {score} on {data['name']}"


def kinds_of(header: Mapping[str, Any]) -> str:
    """What is done to the heads: header as it is kept, or whole."""
    first = header["first"] if "first" in header else next(one for one in header["edits"] if one)
    return " and ".join(dict.fromkeys(map(kind_words, first)))


def budget_card(budget: Budget) -> html.Div:
    """The panel of a budget."""
    header, scores = budget.run.header, budget.scores
    held, data = header["budget"], header["data"]
    drawn = sum(name.startswith(SINGLE) for name in held["orders"])
    sizes = held["sizes"]
    named = scores.loc[scores["named"] < sizes[-1], ["reading", "named"]]
    ended = [f"{reading} after {count}" for reading, count in named.itertuples(index=False)]
    rows = [
        ("Edit", html.Code(kinds_of(header))),
        ("Heads", f"{', '.join(map(str, sizes))} at a time"),
        ("Orders", f"{len(scores)} of readings, {drawn} random"),
        ("Ends early", ", ".join(ended) and f"{', '.join(ended)}; the other heads follow at random"),
        ("Score", html.Code(budget.score)),
        ("Prompts", f"{data['examples']} of {str(data['spec']).replace(',', ', ')}"),
        ("Run", html.Code(budget.run.id)),
    ]
    return html.Div(
        [
            html.H2("Head budget"),
            html.Span(header["model"]["name"], className="ha-muted"),
            html.Dl([html.Div([html.Dt(name), html.Dd(said)]) for name, said in rows if said], className="ha-facts"),
            typed(header),
        ]
    )


def budget_sentence(budget: Budget) -> str:
    """The best reading in one sentence."""
    best = budget.scores.iloc[0]
    half = f"half of the effect is there after {int(best.to_half)}" if best.to_half == best.to_half else "never half"
    ends = signed_interval(float(best.ci_low), float(best.ci_high))
    said = f"area {signed(float(best.area))}, 95 % interval {ends}, {half}"
    return (
        f"The order of {best.reading} finds the heads that matter best: {said}; share of random orders that do as well "
        f"{number(float(best.chance))}. Point at a step to see the heads that it adds."
    )
