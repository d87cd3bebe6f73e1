"""DuoAttention's gates, trained: one number per KV head, 1 where it needs its full cache.

Each KV head's output is a full + (1 - a) streaming attention; only the gates a learn, by Adam, from the squared
difference of the last hidden states to those of the model as it is, plus a price of their mean. Source: Xiao et al.,
"DuoAttention", section 2.3 and its code: gates start at 1 and are clamped to [0, 1] after each step, the rate ramps
over the first and last fifth, price 0.05. Streaming attention is a mask here, so prompts are short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.examples import Example
from ..data.run import Run
from ..data.store import RunWriter
from ..data.tokens import TokenBatch
from ..kernels.inputs import AttentionInputs
from ..kernels.sdpa import attention_output, sdpa_suffices
from .attention import capture
from .batching import model_inputs
from .measurement import Measurement
from .models import Model
from .once import Tell, made_once
from .plan import BATCH_TOKENS, Plan, frame_of, load_for
from .progress import Bar, Report

NAME = "duo_gate"
VERSION = 1
LONGEST = 4096
"""Tokens of a prompt at most: the mask of a streaming head is n x n bits."""
RAMP = 0.2
FLOOR = 0.1


@dataclass(frozen=True)
class Settings:
    """How gates are trained: part of what the run is."""

    sinks: int = 4
    recent: int = 16
    steps: int = 400
    folds: int = 5
    price: float = 0.05
    rate: float = 0.02
    batch: int = 4


@dataclass(frozen=True)
class GatesPlan:
    """One run to be: prompts in folds, each of which trains its own gates."""

    plan: Plan
    settings: Settings

    def header(self) -> dict[str, Any]:
        """The run's header before its first row; all examples are one chunk."""
        plain = self.plan.header(chunk_size=len(self.plan.data.examples))
        settings = {"learned": asdict(self.settings), "probes": {NAME: card_of(self.settings)}}
        return plain | {"kind": "gates", "data": {**plain["data"], "strata": []}} | settings


def gates(
    model: Model,
    data: str = "needle",
    *,
    settings: Settings | None = None,
    examples: int = 60,
    seed: int = 0,
    bos: str = "default",
    store: str | Path = "runs",
    report: Report | None = None,
) -> Run:
    """Train the gates of every KV head on prompts with answers, once for each fold, and return the run.

    The same call again finds it in the store. `n` is the number of folds: the interval is over trainings.
    """
    plan = plan_gates(model, data, settings or Settings(), examples=examples, seed=seed, bos=bos)
    with Bar(plan.settings.folds * plan.settings.steps) as bar:
        return carry_out(plan, store, report=report or bar)


def plan_gates(model: Model, data: str, settings: Settings, *, examples: int, seed: int, bos: str) -> GatesPlan:
    """What `gates` will do, with everything refused that can't be trained."""
    if model.backend == "materialised":
        raise UserError(f"{model.name} computes its own softmax, which can't be mixed with streaming attention")
    if settings.folds < 1 or settings.steps < 1 or settings.recent < 1 or settings.sinks < 0:
        raise UserError(f"expected folds, steps and recent of 1 or more and sinks of 0 or more; came {settings}")
    made = load_for(model, data, examples=examples, seed=seed, bos=bos)
    silent = sum(not (one.answer or one.answer_ids) for one in made.examples)
    if silent:
        raise UserError(
            f"gates are trained on answers, and {silent} of {len(made.examples)} prompts of {made.name!r} have none; "
            "use needle or secrets"
        )
    clusters = len({one.cluster for one in made.examples})
    if clusters < settings.folds:
        raise UserError(f"{clusters} clusters of prompts don't make {settings.folds} folds; ask for more examples")
    frame = frame_of(model, made, bos, 0)
    longest, shortest = max(frame["tokens"]), settings.sinks + settings.recent
    if longest > LONGEST or longest <= shortest:
        raise UserError(
            f"expected prompts of {shortest + 1} to {LONGEST} tokens, more than the cache of {settings.sinks} + "
            f"{settings.recent}; the longest here has {longest}"
        )
    fold = _folds(frame["cluster"].astype(str).tolist(), settings.folds, seed)
    plan = Plan(model, made, (), {}, frame.assign(cluster=fold), seed, bos, BATCH_TOKENS, keep_positions=0)
    return GatesPlan(plan, settings)


def _folds(clusters: Sequence[str], folds: int, seed: int) -> list[str]:
    """The fold of each prompt: whole clusters, so that no two folds train on the same text."""
    names = sorted(set(clusters))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {name: f"fold {place % folds}" for name, place in zip(names, order, strict=True)}
    return [fold[one] for one in clusters]


def carry_out(plan: GatesPlan, store: str | Path, *, report: Report | None = None) -> Run:
    """Train and write; a run that was stopped starts again. Progress is told in steps of all folds."""
    folds, examples = plan.plan.frame["cluster"].to_numpy(), plan.plan.data.examples

    def work(writer: RunWriter, tell: Tell) -> None:
        tables = []
        for name in dict.fromkeys(folds):
            members = np.flatnonzero(folds == name)
            found = train(plan.plan, [examples[at] for at in members], plan.settings, lambda done: tell(1))
            tables.append(_rows(plan.plan.model, found, members))
        writer.write_rows(0, pd.concat(tables, ignore_index=True), [NAME])

    return made_once(plan, store, work, steps=plan.settings.folds * plan.settings.steps, report=report)


def train(
    plan: Plan, examples: Sequence[Example], settings: Settings, step: Callable[[int], object] = lambda done: None
) -> dict[int, Tensor]:
    """Layer -> gates [kv_head], trained on these prompts."""
    model = plan.model
    calls = {layer: call for layer, call in model.text_calls.items() if call.causal}
    found = {layer: torch.ones(call.kv_heads, device=model.device, requires_grad=True) for layer, call in calls.items()}
    optimiser = torch.optim.Adam(list(found.values()), lr=settings.rate)
    batches = [
        plan.encode(examples[start : start + settings.batch]) for start in range(0, len(examples), settings.batch)
    ]
    aims = [_aim(model, one) for one in batches]
    trained = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    random = np.random.default_rng(plan.seed)
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        for done in range(settings.steps):
            chosen = int(random.integers(len(batches)))
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * _rate(done / settings.steps)
            loss = _distance(model, batches[chosen], *aims[chosen], found, settings)
            loss = loss + settings.price * torch.cat(list(found.values())).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for gate in found.values():
                    gate.clamp_(0, 1)
            step(done + 1)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return {layer: gate.detach().cpu() for layer, gate in found.items()}


def _rate(share: float) -> float:
    """The rate's factor after a share of the steps: up over the first fifth, down over the last, never below 0.1."""
    return max(FLOOR, min(1.0, share / RAMP, (1 - share) / RAMP))


def _aim(model: Model, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """The model's own last hidden states at the tokens that say the answer, [row, d_model], and where those are."""
    rows = batch.answering().to(model.device)
    with capture(model.network, lambda module, inputs: None):
        hidden = model.network.base_model(**model_inputs(model, batch, model.network.base_model)).last_hidden_state
    return hidden[rows].float(), rows


def _distance(
    model: Model, batch: TokenBatch, aim: Tensor, rows: Tensor, found: dict[int, Tensor], settings: Settings
) -> Tensor:
    """Mean squared difference of the mixed model's last hidden states to the aim."""

    def mixed(module: torch.nn.Module, inputs: AttentionInputs) -> Tensor | None:
        site = model.sites.site(module)
        if site.tower != "text" or site.layer not in found:
            return None
        if not sdpa_suffices(inputs):
            raise UserError(f"{model.name}: {site.module} has a window, a soft-cap, a bias or sink logits; gates are "
                            "trained for plain causal attention alone")  # fmt: skip
        assert inputs.value is not None
        full, _ = attention_output(inputs)
        mask = _streaming_mask(inputs.shape[2], settings.sinks, settings.recent)
        short = torch.nn.functional.scaled_dot_product_attention(
            inputs.query, *(one.repeat_interleave(inputs.repeats, 1) for one in (inputs.key, inputs.value)),
            scale=inputs.scale, attn_mask=mask.to(inputs.query.device),
        )  # fmt: skip
        gate = found[site.layer].repeat_interleave(inputs.repeats)[None, :, None, None]
        return gate * full + (1 - gate) * short

    with capture(model.network, mixed, gradients=True):
        hidden = model.network.base_model(**model_inputs(model, batch, model.network.base_model)).last_hidden_state
    return ((hidden[rows].float() - aim) ** 2).mean()


@lru_cache(maxsize=8)
def _streaming_mask(length: int, sinks: int, recent: int) -> Tensor:
    """bool [query, key], what a streaming head sees."""
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    return (key <= query) & ((key < sinks) | (query - key < recent))


def _rows(model: Model, found: dict[int, Tensor], members: np.ndarray) -> pd.DataFrame:
    """The store's rows: every query head has the gate of its KV head, in every prompt that trained it."""
    layers = model.text_calls
    places = [
        (layer, head, float(gate[head // (layers[layer].heads // len(gate))]))
        for layer, gate in found.items()
        for head in range(layers[layer].heads)
    ]
    table = pd.DataFrame(places, columns=["layer", "head", "value"])
    whole = pd.concat([table.assign(example=int(member)) for member in members], ignore_index=True)
    return whole.assign(probe=NAME, n_queries=1)


def card_of(settings: Settings) -> dict[str, Any]:
    """The card of the reading."""
    return Measurement(
        name=NAME,
        function=gates,
        title=f"DuoAttention gate, {settings.sinks} + {settings.recent}",
        summary="Trained gate of the head's KV head: 1 keeps the full cache, 0 keeps sinks and recent tokens.",
        formula="argmin_a ||h - h'(a full + (1 - a) streaming)||^2 / d + price mean a",
        unit="gate",
        bounds=(0, 1),
        higher="the answers hang on what this KV head reads far back",
        caveat="hangs on the price, the steps and the data; heads that stand in for each other may share a gate",
        source="Xiao et al., DuoAttention, section 2.3",
        family="gates",
        version=VERSION,
        groups=("answer",),
        default_data="needle",
    ).card()
