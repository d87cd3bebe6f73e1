"""How numbers, intervals, ranks and one-sentence summaries are written, the same on every page and in every figure."""

from __future__ import annotations

import math
from typing import Any

from ..data.baselines import KINDS
from ..data.summary import NO_TOKENS
from .reading import Reading

UNDEFINED = "not defined here"
FROM_WEIGHTS = "from the weights"
NO_EFFECT = "none (the baseline's heads do not differ)"
NO_INTERVAL = "no interval (fewer than 5 clusters)"


def number(value: float) -> str:
    """A value to about four figures, a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if 0 < size < 0.0005:
        return f"{value:.1e}"
    decimals = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{decimals}f}"


def span(low: float, high: float) -> str:
    """Both ends of a range, with as many digits as it takes to tell them apart."""
    if number(low) != number(high):
        return f"{number(low)} to {number(high)}"
    digits = next((d for d in range(4, 9) if f"{low:.{d}g}" != f"{high:.{d}g}"), 9)
    return f"{low:.{digits}g} to {high:.{digits}g}"


def interval(low: float, high: float) -> str:
    """A 95 % interval, or why there is none."""
    return f"{number(low)} – {number(high)}" if math.isfinite(low) and math.isfinite(high) else NO_INTERVAL


def certainty(reading: Reading, low: float, high: float) -> str:
    """What stands beside a value: its 95 % interval, or that it is of the weights and has none."""
    return f"{FROM_WEIGHTS}, no interval" if reading.of_weights else f"95 % interval {interval(low, high)}"


def place_words(stratum: str) -> str:
    """Where a value holds, in a sentence: `at length 512`, or from the weights."""
    return FROM_WEIGHTS if stratum == NO_TOKENS else f"at {stratum_text(stratum)}"


def stratum_text(stratum: str) -> str:
    """`length=512;depth=0.5` for people: `length 512, depth 0.5`."""
    return stratum.replace(";", ", ").replace("=", " ") or "all examples"


def signed(value: float) -> str:
    """A difference, its sign always written."""
    return f"+{number(value)}" if math.isfinite(value) and value > 0 else number(value)


def signed_interval(low: float, high: float) -> str:
    """The 95 % interval of a difference, or why there is none."""
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) and math.isfinite(high) else NO_INTERVAL


def effect_text(value: float) -> str:
    """How far a head lies from the heads of the baseline, or why that can't be said."""
    return f"{'+' if value > 0 else ''}{three_figures(value)} sd" if math.isfinite(value) else NO_EFFECT


def three_figures(value: float) -> str:
    """A value whose thousands matter more than its thousandths: 8,163, 16.1, 0.42."""
    digits = max(0, 2 - math.floor(math.log10(max(abs(value), 1))))
    return f"{value:,.{digits}f}"


def share(value: float) -> str:
    """A q to three decimals; what is smaller is said to be."""
    return "below 0.001" if value < 0.001 else number(value)


def hover(reading: Reading, row: Any) -> str:
    """What a head says when it is pointed at: name, value, interval, n, rank; against a baseline also what is
    subtracted, effect and q."""
    if not math.isfinite(row.value):
        return f"<b>{row.name}</b><br>{reading.title}: {UNDEFINED}"
    unit = f" {reading.unit}" if reading.unit else ""
    if reading.minus:
        return (
            f"<b>{row.name}</b><br>{reading.title} <b>{signed(row.value)}</b>{unit}"
            f"<br>mean {number(row.mean)} · {KINDS[reading.minus]} {number(row.baseline)}"
            f"<br>95 % interval of the difference {signed_interval(row.low, row.high)}"
            f"<br>effect {effect_text(row.effect)} · q {share(row.q)}"
            f"<br>n {int(row.n)} · rank {int(row.rank)} of {reading.ranked} by size"
        )
    return (
        f"<b>{row.name}</b><br>{reading.title} <b>{number(row.value)}</b>{unit}"
        f"<br>{certainty(reading, row.low, row.high)}"
        f"<br>n {int(row.n)} · rank {int(row.rank)} of {reading.ranked}"
    )


def spoken(reading: Reading, row: Any) -> str:
    """The same in one sentence for screen readers."""
    if not math.isfinite(row.value):
        return f"{row.name}: {reading.title} is {UNDEFINED}."
    return (
        f"{row.name}: {reading.title} {number(row.value)}, {certainty(reading, row.low, row.high)}, "
        f"n {int(row.n)}, rank {int(row.rank)} of {reading.ranked}."
    )


def summary(reading: Reading) -> str:
    """One sentence about the whole atlas of a reading."""
    best = reading.top(3)
    if best.empty:
        return f"{reading.title} is not defined for any head of this stratum."
    written, first = (signed, "largest") if reading.minus else (number, "highest")
    names = ", ".join(f"{row.name} ({written(row.value)})" for row in best.itertuples(index=False))
    undefined = reading.layers * (1 if reading.of_layers else reading.heads) - reading.ranked
    gaps = f" {undefined} cells are undefined or not measured." if undefined else ""
    over = f"{reading.layers} layers" + ("" if reading.of_layers else f" and {reading.heads} heads")
    return (
        f"{reading.title} over {over} {place_words(reading.stratum)}: "
        f"median {written(float(reading.table['value'].median()))}, {first} {names}."
        f"{found(reading)}{gaps}"
    )


def found(reading: Reading) -> str:
    """How many heads differ from the baseline, in a sentence; nothing where none is subtracted or tested."""
    if not reading.minus:
        return ""
    q = reading.table["q"].dropna()
    if q.empty:
        return f" No test: {NO_INTERVAL}."
    tested = reading.table.loc[q.index, "n"]
    low, high = int(tested.min()), int(tested.max())
    n = f"n {low}" if low == high else f"n {low} to {high}"
    return f" {int((q < 0.05).sum())} of {len(q)} heads differ from {KINDS[reading.minus]} at q below 0.05 ({n})."
