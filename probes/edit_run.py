"""Runs of edited forwards: the scores of a model on a data set with some edits in force, stored as any other run.

A run holds one or several variants, each a set of edits: variant `i` is the part `i` of its rows where there are
several. Scores speak of the whole model, so rows have neither layer nor head. The run without edits is the parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.examples import Example
from ..data.run import Run
from ..data.schema import run_id
from ..data.store import RunWriter
from ..data.tokens import TokenBatch
from .edits.edit import Edit
from .forward import head_outputs, mean_outputs
from .once import Tell, made_once
from .plan import Plan
from .progress import Report
from .scores import KEPT, SCORES, scored, scores_for

Variants = Sequence[Sequence[Edit]]


@dataclass(frozen=True)
class Means:
    """The mean outputs of all heads over the prompts of a plan, made when they are first asked for."""

    plan: Plan

    @cached_property
    def outputs(self) -> dict[tuple[str, int], Tensor]:
        """(tower, layer) -> [head, d_head]."""
        batches = self.plan.batches(0, self.plan.data.examples)
        return mean_outputs(self.plan.model, (self.plan.encode(one) for one in batches))


@dataclass(frozen=True)
class EditPlan:
    """One run to be: prompts, and the variants of the model that answer them."""

    plan: Plan
    variants: Variants = ((),)
    links: Sequence[Mapping[str, Any]] = ()
    """Entries of `parents`: the run without edits and what this run is beside it; none for that run itself."""
    means: Means | None = None
    said: str = ""
    """What the variants are, as `20 random sets from the same layers`."""
    budget: Mapping[str, Any] | None = None
    """Which variants are the steps of which order of heads: `data/budget.py`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, and the share of rows kept where an edit may have to keep some."""
        keeping = any(one.kind_of.keeps for variant in self.variants for one in variant)
        return (*scores_for(self.plan.data.examples), *([KEPT.name] if keeping else []))

    @property
    def parts(self) -> tuple[str, ...]:
        """The variants' names in the rows; none where there is one."""
        return tuple(map(str, range(len(self.variants)))) if len(self.variants) > 1 else ()

    def header(self) -> dict[str, Any]:
        """The run's header before its first row."""
        cards = {name: replace({**SCORES, KEPT.name: KEPT}[name], parts=self.parts).card() for name in self.names}
        edits = [[one.card() for one in variant] for variant in self.variants]
        header = (
            self.plan.header()
            | {
                "kind": "edit",
                "edits": [] if edits == [[]] else edits,
                "said": self.said,
                "means": self.means.plan.data.digest if self.means else None,
                "probes": cards,
            }
            | ({"budget": dict(self.budget)} if self.budget else {})
        )
        own = run_id(header)  # a policy that leaves all heads as they are is the unedited run itself
        return header | {"parents": [dict(one) for one in self.links if one["run"] != own]}


def carry_out(plan: EditPlan, store: str | Path, *, report: Report | None = None) -> Run:
    """Score what the store does not hold yet; a stopped run goes on with the next chunk of prompts.

    Progress is told in forwards of one prompt: prompts times variants.
    """
    examples = plan.plan.data.examples

    def work(writer: RunWriter, tell: Tell) -> None:
        size = int(writer.header["chunk_size"])
        for chunk in range(-(-len(examples) // size)):
            first = chunk * size
            lacking = [name for name in plan.names if name not in writer.done(chunk)]
            if lacking:
                rows = _rows(plan, first, examples[first : first + size], tell)
                writer.write_rows(chunk, rows.loc[rows["probe"].isin(lacking), :], lacking)
            else:
                tell(len(examples[first : first + size]) * len(plan.variants))

    return made_once(plan, store, work, steps=len(examples) * len(plan.variants), report=report)


def _rows(plan: EditPlan, first: int, examples: Sequence[Example], tell: Tell) -> pd.DataFrame:
    """The store's rows of one chunk; `tell` hears of the prompts of each forward."""
    tables = []
    means = plan.means.outputs if plan.means else None
    for batch in plan.plan.batches(first, examples):
        partner = _partner(plan, first, batch)
        for part, variant in zip(plan.parts or ("",), plan.variants, strict=True):
            found = scored(plan.plan, batch, variant, names=plan.names, means=means, partner=partner)
            tables += [
                pd.DataFrame(
                    {"example": np.arange(first, first + len(batch)), "probe": name, "part": part,
                     "value": values.numpy(), "layer": None, "head": None, "n_queries": 1}
                )
                for name, values in found.items()
            ]  # fmt: skip
            tell(len(batch))
        first += len(batch)
    return pd.concat(tables, ignore_index=True)


def _partner(plan: EditPlan, first: int, examples: Sequence[Example]) -> dict[tuple[str, int], Tensor] | None:
    """What heads write on the partner of each prompt, at the same token (its last one where it is shorter)."""
    if not any(one.kind_of.needs == "partner" for variant in plan.variants for one in variant):
        return None
    every = plan.plan.data.examples
    batch = plan.plan.encode([every[partner_of(every, first + index)] for index in range(len(examples))])
    width = max(plan.plan.lengths[first : first + len(examples)])
    return {place: aligned(output, batch, width) for place, output in head_outputs(plan.plan.model, batch).items()}


def partner_of(examples: Sequence[Example], index: int) -> int:
    """The number of the next prompt of another cluster, counted round; of any prompt where all are of one."""
    order = [(index + step) % len(examples) for step in range(1, len(examples))]
    if not order:
        raise UserError("edit resample takes what heads write on another prompt; expected 2 prompts or more, came 1")
    return next((one for one in order if examples[one].cluster != examples[index].cluster), order[0])


def aligned(output: Tensor, batch: TokenBatch, width: int) -> Tensor:
    """Outputs [batch, head, query, d_head] cut or drawn out to `width` queries: beyond a prompt's end, its last one."""
    assert batch.lengths is not None
    place = torch.minimum(torch.arange(width)[None], batch.lengths[:, None] - 1).to(output.device)
    return output.gather(2, place[:, None, :, None].expand(-1, output.shape[1], -1, output.shape[3]))
