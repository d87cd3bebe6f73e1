"""`headatlas reproduce`: published numbers measured again, paper value, ours and the difference side by side.

The tables are the files of `reproductions/`. Any other model than the paper's runs through the same table, without a
paper value. Nothing here was run on a large pretrained model by us: see the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .models import Model
from .progress import Report
from .table import Found, Setting, all_tables, find_table

COLUMNS = ("quantity", "paper", "ours", "ci_low", "ci_high", "difference", "n", "run", "data", "paper_data")


def reproduce(
    model: Model, name: str, *, examples: int | None = None, data: str | None = None, store: str | Path = "runs",
    seed: int = 0, report: Report | None = None,
) -> pd.DataFrame:  # fmt: skip
    """quantity, paper, ours, ci_low, ci_high, difference, n, run, data and paper_data of each number of a table.

    `data` takes the place of the table's own where all its runs have the same: the paper's text in a file of yours,
    other lengths, or an organism's words. `n` is the number of clusters of prompts.
    """
    table = find_table(name)
    published = table.values_for(model)
    rows: list[dict[str, Any]] = []
    for setting, chosen in zip(table.settings, table.data_of(data), strict=True):
        run = setting.run(
            model, chosen, examples=examples or table.examples, seed=seed, store=Path(store), report=report
        )
        rows += [beside(one, published, setting, run.id, chosen) for one in setting.read(run, published)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def beside(found: Found, published: Mapping[str, float], setting: Setting, run: str, data: str) -> dict[str, Any]:
    """One row: what was found beside what was published."""
    paper = published.get(found.quantity, np.nan)
    return {
        "quantity": found.quantity, "paper": paper, "ours": found.value, "ci_low": found.low, "ci_high": found.high,
        "difference": found.value - paper, "n": found.n, "run": run, "data": data, "paper_data": setting.paper_data,
    }  # fmt: skip


def markdown_of_tables() -> str:
    """The README's list of tables."""
    head = ("| table | what | source | the paper's models | the paper's data | ours |", "|---|---|---|---|---|---|")
    lines = []
    for one in all_tables().values():
        theirs = dict.fromkeys(setting.paper_data for setting in one.settings)
        ours = dict.fromkeys(f"`{setting.data}`" for setting in one.settings)
        cells = (f"`{one.name}`", one.title, one.source, ", ".join(one.models), "; ".join(theirs), ", ".join(ours))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join((*head, *lines))
