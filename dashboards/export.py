"""What leaves a view: a link, the Python that draws it again, the table, the picture."""

from __future__ import annotations

from pathlib import Path

import dash_mantine_components as dmc

from ..data.store import Run
from .controls import icon
from .reading import Reading

EXPORT = "export"
KINDS = {
    "link": "Copy link to this view",
    "python": "Copy Python",
    "csv": "Download table (CSV)",
    "png": "Download picture (PNG)",
    "svg": "Download picture (SVG)",
}


def export_menu() -> dmc.Menu:
    """The menu; each entry's id is {"type": "export", "kind": ...}."""
    items = [dmc.MenuItem(words, id={"type": EXPORT, "kind": kind}) for kind, words in KINDS.items()]
    target = dmc.MenuTarget(dmc.Button("Export", leftSection=icon("export"), variant="default", size="sm"))
    return dmc.Menu([target, dmc.MenuDropdown(items)], position="bottom-end", shadow="md")


def python_for(run: Run, reading: Reading, top: int) -> str:
    """The lines that draw this view in a notebook."""
    said: dict[str, str | int] = {"part": reading.part, "stratum": reading.stratum, "tower": reading.tower}
    said |= {"minus": reading.minus, "top": top}
    options = "".join(f", {key}={value!r}" for key, value in said.items() if value)
    return (
        "import headatlas as ha\n\n"
        f"run = ha.open_store({str(run.path.parent)!r}).run({run.id!r})\n"
        f"ha.atlas(run, {reading.probe!r}{options})\n"
    )


def python_for_report(store: Path, run: str) -> str:
    """The lines that read a causal report back and draw it in a notebook."""
    return (
        "import headatlas as ha\n\n"
        f"report = ha.stored_report(ha.open_store({str(store)!r}).run({run!r}))\n"
        "report.table\n"
        "ha.causal_figure(report)\n"
    )


def python_for_budget(run: Run) -> str:
    """The lines that read a head budget back and draw it in a notebook."""
    return (
        "import headatlas as ha\n\n"
        f"budget = ha.stored_budget(ha.open_store({str(run.path.parent)!r}).run({run.id!r}))\n"
        "budget.scores\n"
        "ha.budget_figure(budget)\n"
    )
