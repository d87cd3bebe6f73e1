"""What was edited, in words and links: the heads, what was done to them, what chose them, what stands beside."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from dash import dcc, html

from ..data.causal import UNEDITED
from ..data.heads import head_name, parse_head
from ..data.reports import ReportCard
from ..data.store import Run, Store
from .causal_words import NAMED, kind_words
from .controls import capital, copyable
from .state import headline, link

PHASE_WORDS = {"both": "both, prompts and decode steps", "prefill": "prefill, prompts alone",
               "decode": "decode, single tokens after a cache alone"}  # fmt: skip


def heads_of(card: ReportCard) -> list[str]:
    """The edited heads in the order of layers."""
    return sorted({name for edit in card.edits for name in edit.get("heads") or ()}, key=parse_head)


def done_to(card: ReportCard) -> str:
    """The kinds of the edits with their parameters."""
    return " and ".join(dict.fromkeys(map(kind_words, card.edits))) or "nothing"


def said_short(card: ReportCard) -> str:
    """The edit in a few words, for a picker: `mean of L1H1, L1H2` or `mask(sinks=4, recent=16) of 40 heads`."""
    heads = heads_of(card)
    return f"{done_to(card)} of {', '.join(heads) if len(heads) <= 2 * NAMED else f'{len(heads)} heads'}"


def measured_run(card: ReportCard, store: Store) -> Run | None:
    """The run whose readings show these heads: the one that chose them, else the latest of the same model, of the same
    data before others; None where there is none."""
    runs = store.runs()
    chosen = (card.chosen_by or {}).get("run")
    if chosen in set(runs["run_id"]):
        return Run(store.path / str(chosen))
    model, data = card.header["model"], card.header["data"]
    runs = runs.loc[
        (runs["kind"] == "measure") & (runs["model"] == model["name"]) & (runs["status"] != "unreadable"), :
    ]
    rows = sorted(runs.to_dict("records"), key=lambda row: row["data"] != data["name"])
    found = [Run(store.path / str(row["run_id"])) for row in rows]
    return next((one for one in found if one.header["model"]["digest"] == model["digest"]), None)


def atlas_link(card: ReportCard, run: Run) -> str:
    """The atlas of a run with the edited heads framed, at the reading that chose them where it is of that run."""
    chosen = card.chosen_by or {}
    named = str(chosen.get("reading") or "").partition(":")[0].partition("@")[0] if chosen.get("run") == run.id else ""
    probe, _, part = named.partition("/")
    return link("/atlas", run=run.id, probe=probe, part=part, heads=",".join(heads_of(card)))


def edit_commands(run: Run | None, store: str) -> list[str]:
    """The commands that edit heads chosen by a reading: of this run, or from the start of the model of the package."""
    model, reading, data, first = "organism:pico-lm", "latest:retrieval/score:top=4", "secrets:lengths=128", []
    if run is not None and (probe := headline(run)):
        header = run.header
        parts = (header["probes"].get(probe) or {}).get("parts") or []
        model, data = str(header["model"]["name"]), str(header["data"]["name"])
        reading = f"{run.id}:{probe}{f'/{parts[0]}' if parts else ''}:top=4"
    else:
        first = [["measure", model, "--probes", "retrieval", "--data", data]]
    commands = [*first, ["edit", model, "--from", reading, "--data", data]]
    return [shlex.join(["headatlas", *words, "--store", store]) for words in commands]


def edited_card(card: ReportCard, run: Run | None, left_out: int) -> html.Div:
    """The panel of an edit."""
    heads, data = heads_of(card), card.header["data"]
    prompts = f"{data['examples']} of {str(data['spec']).replace(',', ', ')}"
    phases = dict.fromkeys(PHASE_WORDS[str(edit.get("phase") or "both")] for edit in card.edits)
    rows = [
        ("Edit", html.Code(done_to(card))),
        ("Phase", capital(", ".join(phases))),
        (f"{len(heads)} head{'' if len(heads) == 1 else 's'}", head_links(heads, run)),
        ("Chosen by", chosen_words(card, run)),
        ("Random sets", capital(card.drawn.partition(": ")[2] or card.drawn) or "None"),
        ("Prompts", prompts + (f"; {left_out} that chose the heads were left out" if left_out else "")),
    ]
    back = run and dcc.Link(
        "Atlas with these heads", href=atlas_link(card, run), id="edits-atlas", className="ha-button"
    )
    parts = [
        html.H2(capital(said_short(card))),
        html.Span(card.header["model"]["name"], className="ha-muted"),
        html.Dl([html.Div([html.Dt(name), html.Dd(said)]) for name, said in rows if said], className="ha-facts"),
        back or html.P("No run of this store reads the heads of this model.", className="ha-muted"),
        html.Details([html.Summary("The runs, and the command"), runs_list(card), typed(card.header)]),
    ]
    return html.Div(parts)


def head_links(names: list[str], run: Run | None) -> html.Div:
    """The heads, a line a layer, each a link to its page where there is one."""
    lines = []
    for _, heads in groupby(map(parse_head, names), key=lambda place: place[0]):
        shown = [head_name(*place) for place in heads]
        lines.append(
            html.Div([dcc.Link(n, href=link("/head", run=run.id, head=n)) if run else html.B(n) for n in shown])
        )
    return html.Div(lines, className="ha-edited-heads")


def chosen_words(card: ReportCard, run: Run | None) -> Any:
    """The reading that chose the heads, as a link to its atlas; or that none is recorded."""
    chosen = card.chosen_by
    if chosen is None:
        return "By name, or not recorded"
    words = html.Code(chosen.get("reading"))
    shown = dcc.Link(words, href=atlas_link(card, run)) if run is not None and run.id == chosen["run"] else words
    return [shown, " of ", html.Code(chosen["run"])]


def runs_list(card: ReportCard) -> html.Dl:
    """condition and run id of each run of the report."""
    rows = [(capital(name) if name != UNEDITED else "Unedited", run) for name, run in card.runs.items()]
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(run, className="ha-mono")]) for name, run in rows], className="ha-facts"
    )


def typed(header: Mapping[str, Any]) -> html.Div | None:
    """The command that wrote the run, where it was typed."""
    words = [str(word) for word in header.get("argv") or []]
    verb = next((one for one in ("edit", "tune", "budget") if one in words[1:2]), None)
    return copyable(shlex.join(["headatlas", *words[words.index(verb) :]])) if verb else None
