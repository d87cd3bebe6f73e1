"""The pieces every page is built from: header, badges, figures with a caption, cards, messages."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from ..data.baselines import kind_words, links_of
from ..data.store import Run
from ..data.summary import NO_TOKENS
from .reading import Reading, bounds
from .state import link
from .wording import FROM_WEIGHTS

STATUS_KINDS = {"done": "good", "running": "busy", "interrupted": "warn", "failed": "bad"}
MINUS_WORDS = {
    "random": "Less what the same model with random weights shows on the same prompts.",
    "shuffled": "Less what the model shows when the tokens of the same prompts are shuffled; labels keep their places.",
}
GRAPH_CONFIG: Any = {"displayModeBar": False, "responsive": True, "doubleClick": False, "showTips": False}


def aria(**said: str) -> dict[str, Any]:
    """What a component says to screen readers, `aria(label=...)`, as keyword arguments of it."""
    return {f"aria-{name}": words for name, words in said.items()}


def icon(name: str) -> html.Span:
    """A decorative icon from the style sheet."""
    return html.Span(className=f"ha-icon ha-icon-{name}", **aria(hidden="true"))


def badge(text: str, *, kind: str = "plain", title: str | None = None) -> html.Span:
    """A small fact about what is shown; `kind` colours it: plain, good, busy, warn, bad."""
    return html.Span(text, className=f"ha-badge ha-badge-{kind}", title=title)


def status_badge(status: str) -> html.Span:
    """The state of a run in a word and a colour."""
    return badge(status, kind=STATUS_KINDS.get(status, "plain"))


def panel(*children: Any, label: str | None = None, **options: Any) -> html.Section:
    """A surface with a frame; give a label when it is a landmark of its own."""
    name = f"ha-panel {options.pop('className', '')}".strip()
    if label:
        options |= aria(label=label)
    return html.Section(list(children), className=name, **options)


def page(title: Any, *children: Any, aside: Any = None, below: Any = None) -> html.Div:
    """The frame of a page: heading, what stands beside it, and the content."""
    heading = [
        html.H1(title, className="ha-title") if isinstance(title, str) else title,
        html.Div(aside or [], className="ha-aside"),
    ]
    return html.Div([html.Div(heading, className="ha-heading"), below, *children], className="ha-page")


def run_badges(run: Run) -> list[Any]:
    """What every number on the page rests on: what it is a baseline of, how many prompts, which precision, whether the
    run is complete."""
    header = run.header
    facts: list[Any] = []
    for parent in links_of(header)[:1]:
        words, name = kind_words(parent), parent["run"]
        title = f"Baseline of {name}: open that run"
        facts.append(dcc.Link(words, href=link("/atlas", run=name), className="ha-badge ha-baseline", title=title))
    data = header.get("data") or {}
    facts.append(badge(FROM_WEIGHTS if data.get("spec") == NO_TOKENS else f"{data.get('examples', '?')} prompts"))
    if header.get("dtype"):
        facts.append(badge(str(header["dtype"]).removeprefix("torch.")))
    if run.status != "done":
        facts.append(badge(f"partial: {run.status}", kind=STATUS_KINDS.get(run.status, "plain")))
    return facts


def figure(identifier: str, *, label: str, height: int, **attributes: Any) -> html.Figure:
    """A graph with a caption that says in one sentence what it shows; both are filled by a callback."""
    graph = dcc.Graph(id=identifier, config=GRAPH_CONFIG, style={"height": height}, responsive=True)
    frame = html.Div(
        graph, role="group", id=f"{identifier}-frame", className="ha-graph", **aria(label=label), **attributes
    )
    return html.Figure([frame, html.Figcaption(id=f"{identifier}-caption")], className="ha-figure")


def copyable(text: str, *, label: str = "Copy") -> html.Div:
    """A command on one line with a button that copies it."""
    button = dmc.CopyButton(value=text, children=label, copiedChildren="Copied", size="compact-xs", variant="light")
    return html.Div([html.Code(text), button], className="ha-command")


def percentile_bar(percentile: float) -> html.Div:
    """Where a head stands among all heads, from 0 to 100, with the middle marked."""
    if percentile != percentile:
        return html.Div("–", className="ha-percentile-none")
    mark = html.Span(className="ha-percentile-mark", style={"left": f"{percentile:.1f}%"})
    tail = " ha-extreme" if abs(percentile - 50) >= 40 else ""
    return html.Div(
        html.Div([html.Span(className="ha-percentile-middle"), mark], className="ha-percentile-track"),
        className=f"ha-percentile{tail}",
        role="img",
        title=f"percentile {percentile:.1f}",
        **aria(label=f"percentile {percentile:.0f}"),
    )


def capital(text: str) -> str:
    """The text as the start of a sentence."""
    return text[:1].upper() + text[1:]


def problem(message: object) -> html.Div:
    """What was expected and what came, in the page, with a way on."""
    return page(
        "Nothing to show here",
        panel(
            html.P(capital(str(message)), className="ha-problem-text", role="alert"),
            dmc.Group(
                [
                    dcc.Link("All runs", href=link("/"), className="ha-button"),
                    dcc.Link("Atlas of the latest run", href=link("/atlas"), className="ha-button ha-button-quiet"),
                ]
            ),
            className="ha-problem",
        ),
    )


def first_steps(store: str) -> html.Section:
    """What to type when the store holds no run yet."""
    return panel(
        html.H2("No runs yet"),
        html.P("A run is one model over one data set. Measure one, and it appears here while it is still running:"),
        copyable(f"headatlas measure organism:pico-lm --data repeats --examples 32 --store {store}"),
        html.P("Then look at it, here or in another terminal:"),
        copyable(f"headatlas serve --store {store}"),
        className="ha-first-steps",
    )


def facts(card: Any) -> html.Dl:
    """The card of a probe: formula, unit, what a high value means, what it does not show, where it comes from."""
    low, high = bounds(card)
    limits = "" if low is None else f", from {low:g}"
    limits += "" if high is None else f" to {high:g}" if limits else f", at most {high:g}"
    rows = [
        ("Formula", html.Code(card.get("formula") or "–")),
        ("Unit", f"{card.get('unit') or 'none'}{limits}"),
        ("High means", capital(card.get("higher") or "–")),
        ("Does not show", capital(card.get("caveat") or "–")),
        ("Source", card.get("source") or "–"),
    ]
    return html.Dl([html.Div([html.Dt(name), html.Dd(text)]) for name, text in rows], className="ha-facts")


def reading_card(reading: Reading) -> html.Div:
    """Title, one line and the formula, with the rest of the card behind a fold."""
    card = reading.card
    unit = badge(reading.unit, title="unit") if reading.unit else None
    return html.Div(
        [
            html.Div([html.H2(reading.title), unit], className="ha-reading-title"),
            html.P(card.get("summary") or ""),
            html.Code(card.get("formula") or ""),
            html.P(MINUS_WORDS[reading.minus], className="ha-minus") if reading.minus else None,
            html.Details([html.Summary("How to read it"), facts(card)]),
        ]
    )
