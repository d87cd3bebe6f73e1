"""Which edit of a store is shown: causal reports in groups of one unedited run, then head budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from dash import dcc, html

from ..data.reports import ReportCard
from ..data.store import Run
from .budgeted import budget_words
from .controls import icon
from .edited import said_short
from .pickers import picker
from .state import link

Group = dict[str, Any]
"""{"group": name, "items": [{"value": run, "label": words}]}, as the picker takes it."""


def groups_of(reports: list[ReportCard], budgets: list[ReportCard]) -> list[Group]:
    """Reports on the same prompts together, the group with the latest first; then the budgets, by data."""
    latest: dict[str, int] = {}
    for place, card in enumerate(reports):
        latest.setdefault(card.base, place)
    ordered = sorted(reports, key=lambda card: latest[card.base])
    groups = [
        group(f"{place_of(base, cards[0].header)}", cards, [said_short(one) for one in cards])
        for base, cards in ((base, list(found)) for base, found in groupby(ordered, key=lambda one: one.base))
    ]
    if budgets:
        groups.append(group("Head budgets", budgets, [budget_words(one.header) for one in budgets]))
    return groups


def place_of(base: str, header: Mapping[str, Any]) -> str:
    """The model and the prompts that reports share."""
    data = header["data"]
    return f"{header['model']['name']} · {data['name']}, {data['examples']} prompts · {base[-8:]}"


def group(name: str, cards: list[ReportCard], words: list[str]) -> Group:
    """Edits in a few words each, with the end of the id where others read the same."""
    count = Counter(words)
    labels = [said if count[said] == 1 else f"{said} · {one.id[-8:]}" for said, one in zip(words, cards, strict=True)]
    return {"group": name, "items": [{"value": one.id, "label": said} for one, said in zip(cards, labels, strict=True)]}


def edit_picker(identifier: str, chosen: str, groups: list[Group], run: Run | None) -> html.Div:
    """The choice, and a step to the edit before and after."""
    order = [item["value"] for one in groups for item in one["items"]]
    at = order.index(chosen)
    steps = [step(side, words, order[at + by] if 0 <= at + by < len(order) else None, run)
             for side, words, by in (("previous", "Previous edit", -1), ("next", "Next edit", 1))]  # fmt: skip
    return html.Div([picker(identifier, "Edit", groups, chosen, width=400), html.Div(steps, className="ha-steps")],
                    className="ha-joined")  # fmt: skip


def step(side: str, words: str, edit: str | None, run: Run | None) -> html.Span | html.Div:
    """A link to the edit before or after; the keyboard presses the same link."""
    if edit is None:
        return html.Span(icon(side), className="ha-step ha-step-off", title=words)
    href = link("/edits", run=run.id if run else None, edit=edit)
    mark: Any = {"data-step": side}
    return html.Div(dcc.Link(icon(side), href=href, className="ha-step", title=words), **mark)
