"""The frame around every page: header, rail of pages, the switch between light and dark, keyboard help."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from .controls import aria, icon
from .theme import mantine

TILES = ("#440154", "#31688e", "#414487", "#22a884", "#fde725", "#2a788e", "#414487", "#7ad151", "#31688e")
"""The logo: a small atlas, row by row."""


def logo_uri() -> str:
    """The logo as an image that needs no request."""
    box = "width='6.6' height='6.6' rx='1.5'"
    tiles = "".join(
        f"<rect x='{1 + 7.7 * (i % 3):.1f}' y='{1 + 7.7 * (i // 3):.1f}' {box} fill='{tile}'/>"
        for i, tile in enumerate(TILES)
    )
    return "data:image/svg+xml," + quote(f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'>{tiles}</svg>")


KEYS = (
    ("← ↑ → ↓", "Move the selected head (atlas), or step to the next head (head page)"),
    ("Enter", "Open the selected head"),
    ("[ ]", "Previous and next reading, or edit"),
    ("/", "Go to a head by name, such as L5H1"),
    ("Esc", "Clear the selection, or go back to the atlas"),
    ("?", "This list"),
)


def frame(store_name: str) -> dmc.MantineProvider:
    """Header, rail and the page; what every page shares stands here once."""
    shell = dmc.AppShell(
        [
            dmc.AppShellHeader(header(store_name)),
            dmc.AppShellNavbar(rail()),
            dmc.AppShellMain(html.Main(dash.page_container, id="content", tabIndex=-1)),
        ],
        header={"height": 52},
        navbar={"width": 76, "breakpoint": 0},
        padding=0,
    )
    hidden = [
        dcc.Store(id="scheme"),
        dcc.Store(id="narrow"),
        dcc.Store(id="selection", data={}),
        html.Div(id="toast", className="ha-toast", role="status", **aria(live="polite")),
    ]
    theme: Any = mantine()
    skip = html.A("Skip to content", href="#content", className="ha-skip")
    return dmc.MantineProvider([skip, shell, help_window(), *hidden], id="mantine", theme=theme)


def header(store_name: str) -> html.Div:
    """Logo, the store, the way to a head by name, light or dark, help."""
    schemes: Any = [
        {"value": value, "label": html.Span([icon(value), html.Span(words, className="ha-unseen")], title=words)}
        for value, words in {"auto": "System colours", "light": "Light", "dark": "Dark"}.items()
    ]
    image = html.Img(src=logo_uri(), alt="", width=22, height=22)
    logo = dcc.Link([image, "headatlas"], href=dash.get_relative_path("/"), className="ha-logo")
    return html.Div(
        [
            logo,
            html.Span([icon("store"), store_name], className="ha-store", title="The store that is shown"),
            html.Div(className="ha-spring"),
            dmc.TextInput(
                id="search", placeholder="Go to head, L5H1", size="sm", w=220, leftSection=icon("search"),
                rightSection=dmc.Kbd("/", size="xs"), **aria(label="Go to head"),
            ),
            dmc.SegmentedControl(
                id="scheme-choice", data=schemes, value="auto", size="xs", persistence=True, persistence_type="local",
                **aria(label="Colours"),
            ),
            dmc.ActionIcon("?", id="help-open", variant="default", size="32px", **aria(label="Keyboard shortcuts")),
        ],
        className="ha-header",
    )  # fmt: skip


def navigable() -> list[dict[str, Any]]:
    """The registered pages that have an entry in the rail, in their order."""
    return [entry for entry in dash.page_registry.values() if entry.get("icon")]


def rail() -> html.Nav:
    """One entry per registered page."""
    links = [
        dcc.Link(
            [icon(entry["icon"]), html.Span(entry["name"])],
            id={"type": "nav", "path": entry["path"]},
            href=entry["relative_path"],
            className="ha-nav",
        )
        for entry in navigable()
    ]
    return html.Nav(links, className="ha-rail", **aria(label="Pages"))


def help_window() -> dmc.Modal:
    """The keyboard shortcuts."""
    rows = [html.Div([html.Dt([html.Kbd(key) for key in keys.split()]), html.Dd(words)]) for keys, words in KEYS]
    note = html.P("Heads are written L5H1: layer 5, head 1, both counted from zero.", className="ha-muted")
    return dmc.Modal(
        [html.Dl(rows, className="ha-keys"), note], id="help", title="Keyboard", opened=False, centered=True
    )


def frame_callbacks(app: Dash) -> None:
    """The colour switch, whether the window is narrow, the links of the rail, the search field and the help window."""
    app.clientside_callback(
        ClientsideFunction("headatlas", "chooseScheme"),
        Output("scheme", "data"), Output("narrow", "data"), Input("scheme-choice", "value"),
    )  # fmt: skip
    app.clientside_callback(
        "scheme => scheme || 'light'", Output("mantine", "forceColorScheme"), Input("scheme", "data")
    )
    paths = [entry["path"] for entry in navigable()]
    app.clientside_callback(
        ClientsideFunction("headatlas", "railLinks"),
        [Output({"type": "nav", "path": path}, "href") for path in paths],
        [Output({"type": "nav", "path": path}, "className") for path in paths],
        Input("selection", "data"),
        Input("_pages_location", "pathname"),
    )
    app.clientside_callback(
        ClientsideFunction("headatlas", "goToHead"),
        Output("search", "value"), Output("search", "error"),
        Input("search", "n_submit"), State("search", "value"), State("selection", "data"), prevent_initial_call=True,
    )  # fmt: skip
    app.clientside_callback(
        "() => true", Output("help", "opened"), Input("help-open", "n_clicks"), prevent_initial_call=True
    )
