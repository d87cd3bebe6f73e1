"""Xiao et al., "DuoAttention": how many KV heads the trained gates leave a full cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...data.run import Run
from ..gates import NAME, Settings, gates
from ..models import Model
from ..progress import Report
from ..table import Setting, Table, overall, percent_of


@dataclass(frozen=True, kw_only=True)
class Gates(Setting):
    """Gates trained as in the paper's code; a gate counts once for each of its query heads, as many for all."""

    settings: Settings = field(default_factory=lambda: Settings(sinks=128, recent=256, steps=2000, folds=1, batch=1))

    def run(self, model: Model, data: str, *, examples: int, seed: int, store: Path, report: Report | None) -> Run:
        """Train the gates, or find them in the store."""
        return gates(model, data, settings=self.settings, examples=examples, seed=seed, bos=self.bos, store=store,
                     report=report)  # fmt: skip


MEAN, OPEN = "mean gate", "gates of 0.5 and more, %"

TABLE = Table(
    name="duo-gates",
    title="DuoAttention's gates: their mean, and the share of KV heads that need a full cache",
    source="Xiao et al., DuoAttention, from its released gates",
    settings=(
        Gates(
            probe=NAME, data="needle:lengths=2048",
            paper_data="10 passkeys of 32 words in BookSum texts of 1,000 to 32,000 tokens (Llama-3.1: 128,000)",
            quantities={MEAN: overall, OPEN: percent_of(0.5)},
        ),
    ),
    published={
        "llama-2-7b-32k-instruct": {MEAN: 0.42, OPEN: 43.6},
        "llama-3-8b-instruct-gradient-1048k": {MEAN: 0.77, OPEN: 81},
        "meta-llama-3.1-8b-instruct": {MEAN: 0.85, OPEN: 91},
        "llama-3.1-8b-instruct": {MEAN: 0.85, OPEN: 91},
        "mistral-7b-instruct-v0.2": {MEAN: 0.92, OPEN: 95},
    },
    unlike="one fact of a few words in a prompt where the paper has ten passkeys; the loss is of the answer's tokens, "
    "the paper's of the questions' too; one training, so no interval",
    models=(
        "togethercomputer/Llama-2-7B-32K-Instruct", "gradientai/Llama-3-8B-Instruct-Gradient-1048k",
        "meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.2",
    ),
    on_organism="headatlas reproduce duo-gates organism:pico-lm --data secrets:lengths=512",
)  # fmt: skip
