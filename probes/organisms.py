"""The models that come with the package: what each one is, and what its certificate says of it."""

from __future__ import annotations

from typing import Any

from ..data.organisms.shelf import certificate, organisms

DESCRIPTIONS = {
    "pico-lm": "6 layers x 8 heads, trained on repeats, needles, names, chat and plain English",
    "pico-lm-seed1": "pico-lm of training seed 1: what holds for all three is not an accident of one",
    "pico-lm-seed2": "pico-lm of training seed 2",
    "pico-sink": "2 layers x 2 heads, trained on Bigram-Backcopy and English until first-token sinks arise",
}


def all_models() -> list[dict[str, Any]]:
    """The models that come with the package: name and certificate."""
    return [{"name": f"organism:{name}", "certificate": certificate(name)} for name in organisms()]


def summary_rows() -> list[tuple[str, str, str]]:
    """Per model: its name, what it is, and how it did."""
    return [(f"organism:{name}", DESCRIPTIONS.get(name, ""), targets_text(certificate(name))) for name in organisms()]


def targets_text(found: dict[str, Any]) -> str:
    """How many of the promised targets a certificate meets, and which it does not."""
    promised = [row for row in found["rows"] if row.get("target") is not None]
    missed = [f"{row['task']} {row.get('length', '')}".strip() for row in promised if not row.get("met")]
    text = f"{len(found['rows'])} measures"
    if promised:
        text += f", {len(promised) - len(missed)} of {len(promised)} targets met"
    return f"{text}; not met: {', '.join(missed)}" if missed else text


def certificate_table(found: dict[str, Any]) -> tuple[list[str], list[tuple[object, ...]]]:
    """Names and rows of a certificate's table, without the columns that say nothing."""
    from .training.certify import certificate_rows

    rows = certificate_rows(found)
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return names, [tuple("" if row[name] is None else row[name] for name in names) for row in rows]
