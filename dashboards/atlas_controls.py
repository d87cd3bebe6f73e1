"""The controls of the atlas: what is drawn and how, set from a URL and asked for by the page's callbacks."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import Input, State, html

from ..data.baselines import KINDS
from ..data.store import Run
from .controls import aria, capital, icon
from .pickers import only_if_many, picker, stratum_picker, tower_picker
from .reading import Frame, Reading
from .readings import cards, parts_of, shape_of
from .state import count, current_run, flag, known_head, known_heads, known_place, known_probe, one_of, reading_of

RUN, PROBE, PART, STRATUM, TOWER = "atlas-run", "atlas-probe", "atlas-part", "atlas-stratum", "atlas-tower"
LIMITS, FLIP, VIEW, TOP, MINUS = "atlas-limits", "atlas-flip", "atlas-view", "atlas-top", "atlas-minus"
PART_FRAME, PREVIOUS, NEXT = "atlas-part-frame", "atlas-previous", "atlas-next"
MOST_TOP = 50
LIMIT_CHOICES = {"full": "Full range", "robust": "Robust", "bounds": "Bounds"}
VIEW_CHOICES = {"one": "One reading", "all": "All readings"}
NOTHING = "nothing"
"""What is subtracted unless a baseline is chosen."""


def read_query(run: Run, table: Frame, query: dict[str, Any]) -> dict[str, Any]:
    """The view a URL asks for, every name checked against the run."""
    probe = known_probe(run, query.get("probe"))
    tower, stratum = known_place(table, query)
    parts = parts_of(table, probe) or [""]
    return {
        "probe": probe,
        "tower": tower,
        "stratum": stratum,
        "part": one_of("part", query.get("part"), parts, parts[0]),
        "head": known_head(query.get("head"), *shape_of(run, tower)[:2]),
        "heads": known_heads(query.get("heads"), *shape_of(run, tower)[:2]),
        "limits": one_of("limits", query.get("limits"), LIMIT_CHOICES, "full"),
        "minus": known_minus(run, query.get("minus")),
        "view": one_of("view", query.get("view"), VIEW_CHOICES, "one"),
        "flip": flag(query.get("flip")),
        "top": count("top", query.get("top"), MOST_TOP),
    }


def known_minus(run: Run, value: Any) -> str:
    """The baseline a URL subtracts; one that the run lacks is refused with the command that measures it."""
    kind = one_of("minus", value, (NOTHING, *KINDS), NOTHING)
    if kind != NOTHING:
        run.baseline(kind)
    return kind


def minus_picker(run: Run, chosen: str) -> html.Div:
    """What is subtracted: nothing, or a baseline that this run has; out of sight where it has none."""
    kinds = [{"value": NOTHING, "label": "Nothing"}]
    kinds += [{"value": kind, "label": capital(KINDS[kind])} for kind in run.baselines()]
    return only_if_many(picker(MINUS, "Minus", kinds, chosen, width=185), kinds)


def controls_row(run: Run, table: Frame, view: dict[str, Any]) -> html.Div:
    """What is drawn: reading, part, stratum, tower, less what; and how: one or all, colour range, direction."""
    parts = parts_of(table, view["probe"])
    part = view["part"] if view["part"] in parts else parts[0]
    return html.Div(
        [
            reading_picker(run, view["probe"]),
            only_if_many(picker(PART, "Part", parts, part, width=150), parts, id=PART_FRAME),
            stratum_picker(STRATUM, table, view["stratum"]),
            tower_picker(TOWER, table, view["tower"]),
            minus_picker(run, view["minus"]),
            html.Div(className="ha-spring"),
            switch(VIEW, "Show", VIEW_CHOICES, view["view"]),
            switch(LIMITS, "Colour", LIMIT_CHOICES, view["limits"]),
            dmc.Switch(id=FLIP, label="Layer 0 on top", checked=view["flip"], size="xs", className="ha-flip"),
        ],
        className="ha-controls",
    )


def reading_picker(run: Run, probe: str | None) -> html.Div:
    """The readings of a run, family by family, and a step to the one before and after."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name, card in cards(run).items():
        family = str(card.get("family") or "other").replace("_", " ")
        groups.setdefault(family, []).append({"value": name, "label": str(card.get("title") or name)})
    named = [{"group": family.capitalize(), "items": items} for family, items in groups.items()]
    sides = {"previous": (PREVIOUS, "Previous reading"), "next": (NEXT, "Next reading")}
    steps = [
        dmc.ActionIcon(icon(side), id=identifier, variant="default", size="36px", **aria(label=words))
        for side, (identifier, words) in sides.items()
    ]
    choice = picker(PROBE, "Reading", named, probe, width=250)
    return html.Div([choice, html.Div(steps, className="ha-steps")], className="ha-joined")


def switch(identifier: str, label: str, choices: dict[str, str], value: str) -> html.Div:
    """A small labelled switch between a few words."""
    data: Any = [{"value": key, "label": words} for key, words in choices.items()]
    control = dmc.SegmentedControl(id=identifier, data=data, value=value, size="xs", **aria(label=label))
    return html.Div([html.Span(label, className="ha-label"), control], className="ha-switch")


def place_inputs(kind: type[Input] | type[State] = Input) -> dict[str, Any]:
    """What a callback asks for to know which reading is shown; a change of it calls the callback where it is Input."""
    shown = {"probe": PROBE, "part": PART, "stratum": STRATUM, "tower": TOWER, "minus": MINUS}
    return {"run": State(RUN, "value"), **{name: kind(identifier, "value") for name, identifier in shown.items()}}


def asked(run: str, probe: str, part: str | None, stratum: str, tower: str, minus: str | None) -> tuple[Run, Reading]:
    """The run and the reading that `place_inputs` name."""
    opened = current_run(run)
    return opened, reading_of(opened, probe, part, stratum, tower, "" if minus in (None, NOTHING) else minus)
