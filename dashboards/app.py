"""The dashboard: a frame that holds the pages, one switch between light and dark, and a server on this machine.

The pages read a store and nothing else: no torch, no model, no request that leaves the machine. A page is a module
with `register(app)`; the navigation is made from `dash.page_registry`.
"""

from __future__ import annotations

import logging
import socket
import webbrowser
from pathlib import Path

import dash
from dash import Dash, html
from rich.console import Console
from werkzeug.serving import make_server

from ..data.errors import UserError
from ..data.store import open_store
from .controls import problem
from .frame import frame, frame_callbacks, logo_uri
from .pages import atlas, edits, head, runs
from .state import keep_store
from .theme import css_variables

DEFAULT_PORT = 8050
PAGES = (runs, atlas, head, edits)

INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>
<link rel="icon" href="__LOGO__">
<style>__COLOURS__</style>
<script>
(function () {
  var choice = localStorage.getItem("headatlas-scheme") || "auto";
  var dark = choice === "dark" || (choice === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
</script>
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


def make_app(store_path: str | Path) -> Dash:
    """The Dash app over a store; it reads the store and never writes to it."""
    store = open_store(store_path)
    app = Dash(
        __name__,
        use_pages=True,
        pages_folder="",
        assets_folder=str(Path(__file__).parent / "assets"),
        title="headatlas",
        update_title="",
        # A page that refuses an unknown id shows a message in place of its controls, so not every id is always there.
        suppress_callback_exceptions=True,
        index_string=INDEX.replace("__LOGO__", logo_uri()).replace("__COLOURS__", css_variables()),
    )
    keep_store(app, store)
    for page in PAGES:
        page.register(app)
    dash.register_page("not_found_404", path="/not-found", layout=not_found)
    app.layout = lambda: frame(store.path.resolve().name)
    frame_callbacks(app)
    return app


def not_found(**_query: str) -> html.Div:
    """What an address without a page says."""
    return problem("expected the address of a page: /, /atlas, /head or /edits; this is none of them")


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens there yet."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str, port: int) -> int:
    """The port asked for; when the default one is taken the next free one, when a chosen one is taken an error."""
    if is_free(host, port):
        return port
    if port != DEFAULT_PORT:
        raise UserError(f"expected a free port on {host}, got {port}, which is in use: choose another with --port")
    nearby = next((other for other in range(port + 1, port + 50) if is_free(host, other)), None)
    if nearby is None:
        raise UserError(f"expected a free port on {host} near {port}, found none: choose one with --port")
    return nearby


def serve(
    store: str | Path = "runs",
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    open_browser: bool = False,
) -> None:
    """Serves the dashboard over a store until interrupted, to this machine alone unless `host` says otherwise."""
    if model is not None:
        raise UserError(
            f"expected no model: pages that run one are not part of this version, got {model!r}; "
            f"measure it first (headatlas measure {model}) and serve the store"
        )
    app = make_app(store)
    chosen = free_port(host, port)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server(host, chosen, app.server, threaded=True)
    console, address = Console(), f"http://{host}:{chosen}"
    if chosen != port:
        console.print(f"port {port} is in use; serving on {chosen} instead")
    console.print(f"headatlas dashboard over {store}: {address}  (Ctrl+C stops it)", soft_wrap=True)
    if open_browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("stopped")
    finally:
        server.server_close()
