"""The `measure` or `learn` command behind a run: as it was typed, or rebuilt from the header."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .baselines import links_of


def resume_command(header: Mapping[str, Any], store: str | Path, *, baselines: bool = False) -> str:
    """The command that measures what is missing of a run, and its baselines where asked (or where it is one)."""
    typed = [str(word) for word in header.get("argv") or []]
    verb = "learn" if header.get("learned") else "measure"
    words = typed[typed.index(verb) :] if verb in typed else _rebuilt(header, str(store))
    if verb == "learn":
        return shlex.join(["headatlas", *words])
    if (baselines or links_of(header)) and "--baselines" not in words:
        words = [*words, "--baselines"]
    return shlex.join(["headatlas", *words])


def _rebuilt(header: Mapping[str, Any], store: str) -> list[str]:
    data, model = header.get("data") or {}, header.get("model") or {}
    learned = header.get("learned") or {}
    chosen = [word for name, value in learned.items() for word in (f"--{name}", str(value))]
    measured = ["--probes", ",".join(header.get("probes") or {})]
    words = ["learn" if learned else "measure", str(model.get("name")), *(chosen or measured)]
    words += ["--data", str(data.get("spec") or data.get("name")), "--examples", str(data.get("examples"))]
    return [*words, "--seed", str(header.get("seed") or 0), "--store", store]
