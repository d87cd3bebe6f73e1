"""Attention Illuminates LLM Reasoning: how often what later tokens read stands where a phrase is planned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...data.rhythm import PROBES, rhythm
from ...data.run import Run
from ..measure import measure
from ..models import Model
from ..progress import Report
from ..table import Found, Setting, Table

COUPLED, CHANCE = "WAAD peaks with a FAI peak at or after them, %", "the same by chance, %"


@dataclass(frozen=True, kw_only=True)
class Coupling(Setting):
    """Peaks of two series that are read token by token; `data/rhythm.py` says what a peak is."""

    @property
    def names(self) -> set[str]:
        """The share, and what chance gives."""
        return {COUPLED, CHANCE}

    def run(self, model: Model, data: str, *, examples: int, seed: int, store: Path, report: Report | None) -> Run:
        """Measure the series, every prompt token by token."""
        return measure(model, PROBES[:3], data, examples=examples, seed=seed, store=store, bos=self.bos,
                       keep_positions=examples, report=report)  # fmt: skip

    def read(self, run: Run, published: Iterable[str] = ()) -> list[Found]:
        """The coupling and what shifted peaks give; the interval of the rhythm is that of their difference."""
        one = rhythm(run).statistics.iloc[0]
        nothing = float("nan")
        return [Found(name, 100 * float(one[column]), nothing, nothing, int(one["n"]))
                for name, column in ((COUPLED, "value"), (CHANCE, "expected"))]  # fmt: skip


TABLE = Table(
    name="rhythm",
    title="The preplan-and-anchor rhythm: peaks of WAAD with a peak of FAI at or after them",
    source="Attention Illuminates LLM Reasoning: The Preplan-and-Anchor Rhythm, section 2",
    settings=(
        Coupling(
            probe=PROBES[0],
            data="text:length=256",
            quantities={},
            paper_data="70 GSM8K problems with the model's own answers at temperature 0.7",
        ),
    ),
    published={"qwen3-4b-base": {COUPLED: 52.53, CHANCE: 36.87}},
    unlike="whole texts, where the paper reads the answers alone; within 3 tokens, peaks as `headatlas rhythm` defines "
    "them (the paper says neither); FAI over 10 to 100 tokens, where the paper goes to the end of the answer",
    examples=32,
    models=("Qwen/Qwen3-4B-Base",),
    on_organism="headatlas reproduce rhythm organism:pico-lm",
)
