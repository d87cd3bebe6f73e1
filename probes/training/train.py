"""The training loop: AdamW, weighted targets, stages with measured gates, growth, resumable checkpoints.

    loss = sum_i w_i * -log p(token_i) / sum_i w_i

with the row-normalised weights of `data/organisms/rows.py`. A grown layer starts with output projections of zero, so
the model computes the same function before and after growing. One thread, so that a seed gives the same weights again.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from ...data.organisms.rows import Encoder
from .feeds import draw_batch
from .gauges import best_induction, family_accuracy, repeat_accuracy
from .recipe import Gate, Recipe, Stage
from .recipes import find_recipe

ATTEMPT = 100_003
"""Added to a run's seed for each further attempt at a stage."""
REPORT_EVERY = 25


@dataclass
class Progress:
    """Where a run stands; saved with the weights, so that a stopped run goes on at the same step."""

    stage: int = 0
    step: int = 0
    cpu_seconds: float = 0.0
    tokens: int = 0
    attempt: int = 0
    """How often the present stage was begun again because its heads were of another kind than asked for."""
    log: list[dict] = field(default_factory=list)


def new_model(recipe: Recipe, encoder: Encoder, *, layers: int) -> LlamaForCausalLM:
    """A stock Llama of the recipe's shape with tied embeddings, freshly drawn from torch's present seed."""
    shape = recipe.shape
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=encoder.vocabulary_size,
            hidden_size=shape.hidden,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.positions,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
            tie_word_embeddings=shape.tied,
            bos_token_id=encoder.bos,
            eos_token_id=encoder.id_of("<eos>"),
            pad_token_id=encoder.pad,
            use_cache=True,
        )
    )


def grown(model: LlamaForCausalLM, recipe: Recipe, encoder: Encoder, *, layers: int) -> LlamaForCausalLM:
    """The same function with more layers: the new ones add exactly zero to the residual stream."""
    old = model.config.num_hidden_layers
    if layers == old:
        return model
    larger = new_model(recipe, encoder, layers=layers)
    larger.load_state_dict(model.state_dict(), strict=False)
    for layer in cast("list[Any]", list(larger.model.layers)[old:]):
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return larger


def weighted_loss(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean log-loss over the weighted targets; logits are made only where a target has weight."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[wanted])
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    chosen = weights[:, 1:][wanted]
    return (losses * chosen).sum() / chosen.sum()


def gate_accuracy(model: LlamaForCausalLM, encoder: Encoder, gate: Gate, *, seed: int) -> float:
    """Repeats are measured at the gate's length, three quarters and half of it, so that no fixed distance can pass."""
    if gate.family != "repeats":
        return family_accuracy(model, encoder, gate.family, length=gate.length, rows=32, seed=seed)
    lengths = (gate.length // 2, 3 * gate.length // 4, gate.length)
    return min(repeat_accuracy(model, encoder, length=length, rows=32, seed=seed) for length in lengths)


def rate_at(stage: Stage, step: int) -> float:
    """Warm-up, a plateau, and a straight line to zero over the stage's last `decay`."""
    left = (stage.steps - step) / (stage.decay * stage.steps) if stage.decay else 1.0
    return stage.rate * min(1.0, (step + 1) / stage.warm_up, left)


def train_organism(
    recipe: Recipe | str, *, seed: int, out: Path | str, checkpoint_every: int = 100, quiet: bool = False
) -> LlamaForCausalLM:
    """Train by `recipe` (or its name) from `seed`, or go on from the checkpoint in `out`; the model is saved there."""
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    torch.set_num_threads(1)
    Path(out).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    run = Run(recipe=recipe, seed=seed, out=Path(out), checkpoint_every=checkpoint_every, quiet=quiet)
    while run.progress.stage < len(recipe.stages):
        run.finish_stage(recipe.stages[run.progress.stage])
    save(run.model, run.encoder, run.out)
    (run.out / "training.json").write_text(json.dumps(run.record(), indent=1) + "\n")
    return run.model


def save(model: LlamaForCausalLM, encoder: Encoder, folder: Path) -> None:
    """Weights, configuration and tokenizer, as transformers reads them."""
    ids = {"bos_token_id": encoder.bos, "eos_token_id": encoder.id_of("<eos>"), "pad_token_id": encoder.pad}
    model.generation_config = GenerationConfig(**ids, do_sample=False)
    model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


class Run:
    """One training run: model, optimizer and progress, and the checkpoint they are saved to."""

    def __init__(self, *, recipe: Recipe, seed: int, out: Path, checkpoint_every: int, quiet: bool) -> None:
        self.recipe, self.seed, self.out = recipe, seed, out
        self.checkpoint_every, self.quiet = checkpoint_every, quiet
        self.encoder = Encoder()
        path = out / "checkpoint.pt"
        saved = torch.load(path, weights_only=True) if path.exists() else None
        self._refuse_another(saved)
        self.progress = Progress(**saved["progress"]) if saved else Progress()
        self.model = new_model(recipe, self.encoder, layers=saved["layers"] if saved else recipe.stages[0].layers)
        self._optimizer_state = saved["optimizer"] if saved else None
        if saved:
            self.model.load_state_dict(saved["model"])

    def _refuse_another(self, saved: dict | None) -> None:
        """Only an empty folder, or one of the same recipe and seed, is written to."""
        if saved is None and any(self.out.iterdir()):
            raise ValueError(f"{self.out} holds files that are no training run; name a new folder")
        if saved is not None and (saved["recipe"], saved["seed"]) != (self.recipe.name, self.seed):
            raise ValueError(
                f"{self.out} holds a run of {saved['recipe']} with seed {saved['seed']}, asked for was "
                f"{self.recipe.name} with seed {self.seed}; name another folder"
            )

    def finish_stage(self, stage: Stage) -> None:
        """Train until the stage's gate is passed or its steps are done, and save; from new weights if need be."""
        while not self._attempt_stage(stage):
            self.progress.attempt, self.progress.step = self.progress.attempt + 1, 0
            torch.manual_seed(self._attempt_seed)
            self.model = new_model(self.recipe, self.encoder, layers=stage.layers)
        self.progress.log.append(
            {"stage": self.progress.stage, "step": self.progress.step, "attempt": self.progress.attempt}
        )
        self.progress.stage, self.progress.step, self.progress.attempt = self.progress.stage + 1, 0, 0
        self._checkpoint(None)

    @property
    def _attempt_seed(self) -> int:
        """The run's seed, or a number of its own for each later attempt at a stage."""
        return self.seed + ATTEMPT * self.progress.attempt

    def _attempt_stage(self, stage: Stage) -> bool:
        """Train one stage; False where its gate is passed by heads of another kind than it asks for."""
        torch.manual_seed(self.seed * 1000 + self.progress.stage)
        self.model = grown(self.model, self.recipe, self.encoder, layers=stage.layers)
        optimizer = self._new_optimizer()
        passed, since, losses = False, time.process_time(), []
        while self.progress.step < stage.steps and not passed:
            losses.append(self._step(stage, optimizer))
            now = time.process_time()
            self.progress.cpu_seconds, since = self.progress.cpu_seconds + now - since, now
            if self.progress.step % REPORT_EVERY == 0:
                self._report(stage, float(np.mean(losses)))
                losses = []
            if self.progress.step % self.checkpoint_every == 0:
                self._checkpoint(optimizer)
            passed = stage.gate is not None and self.progress.step % stage.gate.every == 0 and self._passes(stage.gate)
        if stage.gate and stage.gate.must and not passed:
            raise RuntimeError(
                f"stage {stage.name!r} of {self.recipe.name!r} did not reach {stage.gate.accuracy} on"
                f" {stage.gate.family} at {stage.gate.length} in {stage.steps} steps; add steps or shorten its rows"
            )
        return self._of_the_kind(stage.gate)

    def _of_the_kind(self, gate: Gate | None) -> bool:
        """Whether the heads that passed the gate read the token after the earlier occurrence, if it asks for that."""
        if gate is None or not gate.induction:
            return True
        mass = best_induction(self.model.eval(), self.encoder, length=gate.length, seed=self.seed)
        self._say(f"  attempt {self.progress.attempt}: best induction head {mass:.3f} of {gate.induction}")
        self.progress.log.append({"stage": self.progress.stage, "attempt": self.progress.attempt, "induction": mass})
        return mass >= gate.induction

    def record(self) -> dict:
        """What the certificate says of the run: seed, steps taken in each stage, tokens, CPU seconds, command."""
        ended = [entry for entry in self.progress.log if "step" in entry and "attempt" in entry]
        taken = {self.recipe.stages[entry["stage"]].name: entry["step"] for entry in ended}
        return {
            "recipe": self.recipe.name,
            "seed": self.seed,
            "seeds": list(self.recipe.seeds),
            "steps": taken,
            "attempts": 1 + sum(entry["attempt"] for entry in ended),
            "tokens": self.progress.tokens,
            "cpu_seconds": round(self.progress.cpu_seconds),
            "command": f"headatlas train {self.recipe.name} --seed {self.seed}",
            "log": self.progress.log,
        }

    def _step(self, stage: Stage, optimizer: torch.optim.Optimizer) -> float:
        self.model.train()
        ids, weights = map(
            torch.from_numpy, draw_batch(self.encoder, stage, seed=self._attempt_seed, step=self.progress.step)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate_at(stage, self.progress.step)
        loss = weighted_loss(self.model, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        optimizer.step()
        self.progress.step += 1
        self.progress.tokens += ids.numel()
        return loss.item()

    def _passes(self, gate: Gate) -> bool:
        measured = gate_accuracy(self.model, self.encoder, gate, seed=self.progress.step)
        here = {"stage": self.progress.stage, "step": self.progress.step}
        self.progress.log.append(here | {f"{gate.family}@{gate.length}": measured})
        self._say(f"  gate {gate.family}@{gate.length}: {measured:.3f} of {gate.accuracy}")
        return measured >= gate.accuracy

    def _new_optimizer(self) -> torch.optim.AdamW:
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=0.0,
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        return optimizer

    def _checkpoint(self, optimizer: torch.optim.Optimizer | None) -> None:
        state = {
            "model": self.model.state_dict(),
            "layers": self.model.config.num_hidden_layers,
            "optimizer": optimizer.state_dict() if optimizer else None,
            "progress": vars(self.progress),
            "recipe": self.recipe.name,
            "seed": self.seed,
        }
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def _report(self, stage: Stage, loss: float) -> None:
        done = self.progress
        done.log.append({"stage": done.stage, "step": done.step, "loss": round(loss, 4)})
        tokens = f"{done.tokens / 1e6:.2f} M tokens"
        self._say(f"{stage.name} {done.step}/{stage.steps} loss {loss:.3f} {tokens} {done.cpu_seconds:.0f} CPU s")

    def _say(self, line: str) -> None:
        if not self.quiet:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
