"""The baselines of a run: the same probes on the same prompts, with random weights and with shuffled tokens.

Random weights: the same configuration initialised anew by transformers, from the run's seed, checked like any model.
Shuffled tokens: see `data/shuffle.py`. Both are one draw; another seed of the run gives another. The network with
random weights is held beside the model, which takes its memory once more. Where the model answered by itself
(`own_answers.py`), its response is part of the prompts of both.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import torch

from ..data.baselines import KINDS
from ..data.errors import UserError, first_line
from ..data.schema import run_id
from ..data.writer import TEXT_LIMIT
from .check import check_capture
from .models import Model
from .plan import Baseline, Plan, decoded


def baseline_plans(plan: Plan, random: Model) -> list[Plan]:
    """The plans of both baselines of a run; one that no probe makes sense on is left out."""
    of = run_id(plan.header())
    made = [replace(plan, model=random, baseline=Baseline("random", of)), _shuffled(plan, of)]
    return [one for one in made if one.probes]


def random_weights(model: Model, *, seed: int) -> Model:
    """The model's configuration with weights drawn anew: same class, tokenizer, data type and device."""
    old = model.network
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = type(old)._from_config(copy.deepcopy(old.config), dtype=old.dtype)
    except (OSError, ValueError, RuntimeError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"{model.name} ({type(old).__name__}) can't be initialised anew from its config, so it has no baseline of "
            f"{KINDS['random']}: {first_line(error)}. Measure without --baselines"
        ) from error
    torch.nn.Module.to(network.eval(), old.device)
    made = replace(model, network=network, calls=[], verify=True)
    check_capture(made)
    return made


def _shuffled(plan: Plan, of: str) -> Plan:
    """The plan with the tokens of each prompt in another order, and the table of examples that shows it."""
    skipped = {one.name: one.not_shuffled for one in plan.probes if one.not_shuffled}
    digest = hashlib.sha256(f"{KINDS['shuffled']}: {plan.data.digest}".encode()).hexdigest()[:16]
    made = replace(
        plan,
        data=replace(plan.data, digest=digest),
        probes=tuple(one for one in plan.probes if one.name not in skipped),
        skipped={**plan.skipped, **skipped},
        baseline=Baseline("shuffled", of),
    )
    ids = [made.encode([example]).ids_of(0) for example in plan.data.examples]
    texts = [decoded(plan.model, one[:TEXT_LIMIT]) for one in ids]
    kept = [one if place < plan.keep_positions else None for place, one in enumerate(ids)]
    return replace(made, frame=plan.frame.assign(text=texts, token_ids=kept))
