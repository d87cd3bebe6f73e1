"""The choices of a page: labelled pickers, out of sight while there is nothing to choose."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from ..data.baselines import KINDS
from ..data.store import Store
from .reading import Frame
from .readings import strata_of, towers_of
from .wording import stratum_text


def run_picker(identifier: str, store: Store, chosen: str) -> dmc.Select:
    """The run of this page; each run says its model and its data."""
    runs = store.runs()
    runs = [run for run in runs.to_dict("records") if run["status"] != "unreadable"]
    data = [{"value": run["run_id"], "label": run_label(run)} for run in runs]
    labels = [entry["label"] for entry in data]
    for entry in data:
        if labels.count(entry["label"]) > 1:
            entry["label"] += f" · {entry['value'][-8:]}"
    return picker(identifier, "Run", data, chosen, width=400)


def run_label(run: dict[str, Any]) -> str:
    """Model and data of a listed run, and what a baseline leaves out."""
    kind = KINDS.get(run["baseline"]) if isinstance(run["baseline"], str) else None
    return " · ".join([run["model"], run["spec"], *([kind] if kind else [])])


def picker(identifier: str, label: str, data: list[Any], value: str | None, *, width: int = 180) -> dmc.Select:
    """A labelled choice that cannot be emptied; hidden by the caller when there is nothing to choose."""
    return dmc.Select(
        id=identifier,
        label=label,
        data=data,
        value=value,
        allowDeselect=False,
        searchable=len(data) > 8 or any("group" in entry for entry in data if isinstance(entry, dict)),
        w=width,
        size="sm",
        maxDropdownHeight=420,
        nothingFoundMessage="nothing by that name",
        comboboxProps={"shadow": "md"},
    )


def stratum_picker(identifier: str, table: Frame, chosen: str) -> html.Div:
    """The strata of a heads table."""
    strata = strata_of(table)
    named = [{"value": stratum, "label": stratum_text(stratum)} for stratum in strata]
    return only_if_many(picker(identifier, "Stratum", named, chosen, width=170), strata)


def tower_picker(identifier: str, table: Frame, chosen: str) -> html.Div:
    """The towers of a heads table."""
    towers = towers_of(table)
    return only_if_many(picker(identifier, "Tower", towers, chosen, width=120), towers)


def only_if_many(component: Component, options: list[Any], **facts: Any) -> html.Div:
    """The component, kept on the page but out of sight while there is no choice to make."""
    return html.Div(component, className=shown_if(len(options) > 1), **facts)


def shown_if(wanted: bool) -> str:
    """The class of a part of the page that is there only sometimes."""
    return "" if wanted else "ha-hidden"
