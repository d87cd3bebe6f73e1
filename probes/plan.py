"""What a `measure` command will do, worked out before anything runs: data, probes, what is skipped and why."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import transformers

from ..data.baselines import KINDS, parent_link
from ..data.catalog import Dataset, load_data
from ..data.encode import encode
from ..data.errors import UserError
from ..data.examples import Example, examples_frame
from ..data.shuffle import shuffle, special_ids
from ..data.tokens import TokenBatch
from ..data.version import __version__
from ..data.vocabulary import Vocabulary
from ..data.writer import TEXT_LIMIT
from ..kernels.dispatch import backend
from ..kernels.stats import FIELDS
from .batching import check_tokens
from .cost import cells_of
from .experiment import Experiment
from .measurement import Measurement
from .models import Model
from .observer import unshown
from .own_answers import answered
from .reading import WeightReading
from .sample import sample_batch

BATCH_TOKENS = 8192
"""Tokens of one forward, padding included, unless `batch_tokens` says otherwise."""


@dataclass(frozen=True)
class Baseline:
    """What a run leaves out, `random` or `shuffled`, and the id of the run that it is the baseline of."""

    kind: str
    run: str


@dataclass(frozen=True)
class Plan:
    """One run to be: a model, a data set, and the probes that make sense on it."""

    model: Model
    data: Dataset
    probes: tuple[Measurement, ...]
    """Probes, all of one forward, and experiments."""
    skipped: dict[str, str]
    """Probe name -> why it is not measured here."""
    frame: pd.DataFrame
    """The store's table of examples, one row each."""
    seed: int
    bos: str
    batch_tokens: int = BATCH_TOKENS
    keep_positions: int = 8
    answers: str = "given"
    baseline: Baseline | None = None
    """None for a run of its own."""

    @property
    def title(self) -> str:
        """What is measured on what, as people say it."""
        kind = f", {KINDS[self.baseline.kind]}" if self.baseline else ""
        return f"{self.model.name} on {self.data.spec}{kind}"

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that all probes together ask for."""
        return frozenset().union(*(one.needs for one in self.probes))

    @property
    def statistics_by(self) -> str:
        """The backend of the statistics; a long run is worth a compilation."""
        return backend(self.model.device, cells_of(self.model, self.lengths))

    def header(self, chunk_size: int = 16) -> dict[str, Any]:
        """The run's header before its first row."""
        card = self.model.card()
        return {
            "kind": "measure",
            "model": card,
            "dtype": self.model.dtype,
            "device": self.model.device.type,
            "backend": f"{self.model.backend}/{self.statistics_by}",
            "tokenizer": {"digest": self.model.tokenizer_digest},
            "data": {
                "name": self.data.name,
                "spec": self.data.spec,
                "digest": self.data.digest,
                "strata": list(self.data.strata),
                "groups": list(self.data.groups),
                "examples": len(self.data.examples),
                "answers": self.answers,
            },
            "bos": self.bos,
            "seed": self.seed,
            "edits": [],
            "parents": [parent_link(self.baseline.run, self.baseline.kind)] if self.baseline else [],
            "chunk_size": chunk_size,
            "keep_positions": self.keep_positions,
            "versions": versions(),
            "probes": {one.name: one.card() for one in self.probes},
            "skipped": self.skipped,
            "argv": sys.argv,
        }

    def batches(self, first: int, examples: Sequence[Example]) -> list[list[Example]]:
        """Consecutive examples from number `first` on, as many together as `batch_tokens` allows.

        The split is the same whatever is measured, so a resumed run repeats the same forwards.
        """
        batches: list[list[Example]] = [[]]
        widest = 0
        for example, length in zip(examples, self.lengths[first:], strict=False):
            widest = max(widest, length)
            if batches[-1] and widest * (len(batches[-1]) + 1) > self.batch_tokens:
                batches.append([])
                widest = length
            batches[-1].append(example)
        return batches

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example, special ones and answer included."""
        return self.frame["tokens"].tolist()

    def encode(self, examples: Sequence[Example]) -> TokenBatch:
        """The `TokenBatch` of some examples under this run's rules."""
        batch = encode(examples, self.model.tokenizer, bos=self.bos, max_length=self.model.max_length)
        if self.baseline is None or self.baseline.kind != "shuffled":
            return batch
        return shuffle(batch, seed=self.seed, fixed=special_ids(self.model.tokenizer))


def make_plan(
    model: Model,
    probes: Sequence[Measurement],
    data: str,
    *,
    examples: int = 32,
    seed: int = 0,
    bos: str = "default",
    named: Collection[str] = (),
    batch_tokens: int = BATCH_TOKENS,
    keep_positions: int = 8,
    answers: str = "given",
    report: Callable[[int], object] = lambda done: None,
) -> Plan:
    """The plan of one run; with answers `own` or `right` the model answers first, greedily (`own_answers.py`).

    A probe that can't be measured on this data is skipped with the reason; an error if all are, or one of `named`.
    """
    made = load_for(model, data, examples=examples, seed=seed, bos=bos)
    skipped = {one.name: reason for one in probes if (reason := why_not(one, model, made)) is not None}
    kept = tuple(one for one in probes if not isinstance(one, WeightReading) and one.name not in skipped)
    _refuse(kept, skipped, named)
    made = answered(model, made, answers, bos=bos, batch_tokens=batch_tokens, report=report)
    frame = frame_of(model, made, bos, keep_positions)
    skipped |= _too_short(kept, max(frame["tokens"].tolist()))
    kept = tuple(one for one in kept if one.name not in skipped)
    _refuse(kept, skipped, named)
    return Plan(model, made, kept, skipped, frame, seed, bos, batch_tokens, keep_positions, answers)


def load_for(model: Model, data: str, *, examples: int, seed: int, bos: str) -> Dataset:
    """The data set in this model's vocabulary; a model that takes more than text is refused."""
    size = getattr(model.config, "vocab_size", None)
    if size is None:
        raise UserError(f"{model.name} has no vocabulary: `measure` takes models of text; use ha.observe for others")
    sample = sample_batch(model)
    if sample is not None and sample.extra:
        raise UserError(
            f"{model.name} takes {', '.join(sample.extra)} beside token ids: `measure` takes models of text alone; "
            "use ha.batch and ha.observe for others"
        )
    return load_data(data, Vocabulary(model.tokenizer, size, bos=bos), examples=examples, seed=seed)


def _refuse(kept: Sequence[Measurement], skipped: Mapping[str, str], named: Collection[str]) -> None:
    """An error where nothing is left, or a probe that was named is not."""
    refused = skipped if not kept else {name: reason for name, reason in skipped.items() if name in named}
    if refused:
        raise UserError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))


def _too_short(probes: Sequence[Measurement], longest: int) -> dict[str, str]:
    """Why probes of long prompts are not measured where the longest has so many tokens."""
    return {
        one.name: f"is undefined for prompts of fewer than {one.shortest} tokens, and the longest here has {longest}; "
        f"ask for longer ones, as --data text:length={2 ** (one.shortest - 1).bit_length()} does"
        for one in probes
        if longest < one.shortest
    }


def why_not(one: Measurement, model: Model, data: Dataset) -> str | None:
    """Why a probe can't be measured for this model and data, or None."""
    if isinstance(one, WeightReading):
        return "reads the weights alone, no prompts; its run is that of the data set 'weights'"
    if lack := one.lack(data.name, data.groups):
        return lack
    if one.causal_only and model.calls and not any(call.causal for call in model.calls if not call.cross):
        return f"is defined for causal attention; {model.name} is bidirectional"
    if model.backend == "materialised" and isinstance(one, Experiment):
        return "edits heads, which can't be done in a model with its own softmax"
    unseen = unshown(one.needs)
    if model.backend == "materialised" and unseen:
        return f"reads {', '.join(unseen)}, which a model with its own softmax does not show"
    return None


def frame_of(model: Model, data: Dataset, bos: str, keep_ids: int) -> pd.DataFrame:
    """Every example encoded once: its tokens counted (a prompt longer than the context is refused here) and shown."""
    tokens, texts, kept = [], [], []
    for example in data.examples:
        batch = encode([example], model.tokenizer, bos=bos, max_length=model.max_length)
        check_tokens(model, batch)
        ids = batch.ids_of(0)
        tokens.append(len(ids))
        texts.append(example.text if example.text is not None else decoded(model, ids[:TEXT_LIMIT]))
        kept.append(ids if len(kept) < keep_ids else None)
    return examples_frame(data.examples, dataset=data.name, tokens=tokens, texts=texts, token_ids=kept)


def decoded(model: Model, ids: list[int]) -> str:
    """The text of ids; without a tokenizer, their numbers."""
    return model.tokenizer.decode(ids) if model.tokenizer is not None else " ".join(map(str, ids))


def versions() -> dict[str, Any]:
    """Versions that a number may depend on; `statistics` are those of the kernel fields."""
    return {
        "headatlas": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "statistics": {name: one.version for name, one in FIELDS.items() if one.version > 1},
    }
