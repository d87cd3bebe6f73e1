"""The examples behind a reading: this head's value in each, and the texts at the top, the middle and the bottom."""

from __future__ import annotations

from typing import Any

import pandas as pd
from dash import html

from ..data.heads import parse_head
from ..data.store import Run
from ..data.summary import strata_of as examples_of
from .reading import Frame, Reading, row_in
from .readings import strata_of
from .state import heads_table, reading_of
from .wording import FROM_WEIGHTS, interval, number, stratum_text

BAND = 4
"""Examples shown from each of the three bands."""
CUT = 150


def in_stratum(run: Run, stratum: str) -> Frame:
    """The examples of a stratum such as `length=512;depth=0.5`, split just as the heads table was."""
    examples = run.examples().set_index("example")
    members = dict(examples_of(examples, run.header["data"].get("strata") or ()))
    return examples.loc[members.get(stratum, examples.index)].reset_index()


def values_of(run: Run, reading: Reading, name: str) -> Frame:
    """One row per example of the stratum with the head's value, highest first, undefined last."""
    layer, head = parse_head(name)
    rows = run.rows(reading.probe, layer=layer, head=head)
    rows = rows[(rows["part"].astype(str) == reading.part) & (rows["tower"].astype(str) == reading.tower)]
    merged = in_stratum(run, reading.stratum).merge(rows[["example", "value", "n_queries"]], on="example", how="inner")
    return merged.sort_values("value", ascending=False, na_position="last", ignore_index=True)


def bands(values: Frame) -> list[tuple[str, Frame]]:
    """The highest, the middle and the lowest examples, without showing one twice."""
    known = values.dropna(subset=["value"])
    if len(known) <= 3 * BAND:
        return [("All examples, highest first", known)]
    start = (len(known) - BAND) // 2
    return [
        ("Highest", known.head(BAND)),
        ("Middle", known.iloc[start : start + BAND]),
        ("Lowest", known.tail(BAND)),
    ]


def shown_text(row: Any) -> str:
    """The text of an example, cut, its line breaks made visible."""
    text = str(row.text or "").replace("\n", " ⏎ ").strip()
    return f"{text[:CUT]}…" if len(text) > CUT else text or "(no text stored)"


def band_table(reading: Reading, values: Frame) -> html.Div:
    """The table of examples."""
    head = html.Thead(html.Tr([html.Th(reading.title), html.Th("Example"), html.Th("Text")]))
    body = []
    for words, rows in bands(values):
        body.append(html.Tr(html.Th(words, colSpan=3, scope="rowgroup"), className="ha-band"))
        for row in rows.itertuples(index=False):
            cells = [number(row.value), str(row.id), shown_text(row)]
            body.append(html.Tr([html.Td(cell) for cell in cells]))
    undefined = int(values["value"].isna().sum())
    note = (
        html.P(f"{undefined} examples where it is not defined are left out.", className="ha-muted")
        if undefined
        else None
    )
    return html.Div([html.H2("Examples"), html.Table([head, html.Tbody(body)], className="ha-table"), note])


def over_strata(run: Run, reading: Reading, name: str) -> Frame:
    """The head and the median head in every stratum of the same kind as the shown one."""
    table = heads_table(run)
    rows = []
    for stratum in strata_of(table[table["probe"] == reading.probe]):
        if stratum.count(";") != reading.stratum.count(";"):
            continue
        other = reading_of(run, reading.probe, reading.part, stratum, reading.tower)
        row = row_in(other, name)
        if row is not None:
            rows.append(
                {**row[["value", "low", "high"]].to_dict(), "stratum": stratum, "median": other.table["value"].median()}
            )
    return pd.DataFrame(rows, columns=["stratum", "value", "low", "high", "median"])


def sentence(reading: Reading, name: str, values: Frame) -> str:
    """What the distribution shows, in words."""
    row, known = row_in(reading, name), values["value"].dropna()
    if row is None or known.empty:
        return f"{reading.title} is not defined for {name} in this stratum."
    if reading.of_weights:
        place = f"rank {int(row['rank'])} of {reading.ranked} heads"
        return f"{name}, {FROM_WEIGHTS}: {number(row['value'])}; {place}. One value, so there is no interval."
    return (
        f"{name} at {stratum_text(reading.stratum)}: mean {number(row['value'])} "
        f"(95 % interval {interval(row['low'], row['high'])}, n {int(row['n'])}), from {number(known.min())} to "
        f"{number(known.max())} over examples; rank {int(row['rank'])} of {reading.ranked} heads."
    )


def course_sentence(course: Frame, reading: Reading, name: str) -> str:
    """What the course over strata shows, in words."""
    if len(course) < 2:
        return ""
    first, last = course.iloc[0], course.iloc[-1]
    return (
        f"{reading.title} of {name} goes from {number(first['value'])} at {stratum_text(first['stratum'])} to "
        f"{number(last['value'])} at {stratum_text(last['stratum'])}; strata are never averaged."
    )
