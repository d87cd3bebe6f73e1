"""The verb of this room: `headatlas serve`."""

from __future__ import annotations

import argparse

from ..data.terminal import teach

EXAMPLES = """examples:
  headatlas serve                          the runs in ./runs, at http://127.0.0.1:8050
  headatlas serve --store results --open   another store, and open the browser
  headatlas serve --port 9000              a port of your own

Runs appear while they are being measured. Nothing is sent anywhere: the page and its
scripts come from this machine, and only this machine can reach it unless --host says so.
On a remote machine, forward the port instead:  ssh -L 8050:127.0.0.1:8050 there
"""


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """What `headatlas serve` accepts."""
    teach(parser, "Open the dashboard over a store: Runs, Atlas, Head and Edits pages.", EXAMPLES)
    parser.add_argument("--store", default="runs", metavar="FOLDER", help="the store to show (default: runs)")
    parser.add_argument(
        "--model", default=None, metavar="MODEL", help="reserved for live pages; refused in this version"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8050, help="port (default: 8050, or the next free one)")
    parser.add_argument("--open", action="store_true", help="open the browser")


def serve_run(args: argparse.Namespace) -> int:
    """Serves until interrupted."""
    from .app import serve

    serve(args.store, args.model, host=args.host, port=args.port, open_browser=args.open)
    return 0
