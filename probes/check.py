"""The promise the package lives on, checked at load: what is captured is what the model computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from .attention import configs, evaluating
from .batching import all_logits, model_inputs
from .models import Model
from .observer import Observer, run
from .sample import sample_batch

TOLERANCE = {torch.float32: 2e-4, torch.float64: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of outputs inside and outside the capture, relative to their largest value."""


def check_capture(model: Model, sample: TokenBatch | None = None) -> None:
    """Raise UserError unless outputs agree, attention calls were seen and every row of weights sums to 1.

    Without a sample, a few random inputs are made; a model that takes none of those is checked on its first batch.
    """
    sample = sample or sample_batch(model)
    if sample is None:
        return
    try:
        outside = _plain(model, sample)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return
    observer = Observer(model, sample, frozenset({"row_mass", "logsumexp"}))
    try:
        inside = _judged(run(model, sample, observer, change=all_logits), sample)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): its forward fails when its attention is captured, so its "
            f"heads can't be measured; {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if not observer.collected:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): expected attention calls through transformers' attention "
            "interface, SDPA or softmax, saw none; its heads can't be measured"
        )
    _check_outputs(model, outside, inside)
    _check_rows(model, observer)
    model.calls[:] = [stats.call for stats in observer.collected]


def _plain(model: Model, sample: TokenBatch) -> Tensor:
    with evaluating(model.network):
        return _judged(model.network(**all_logits(model_inputs(model, sample))), sample)


def _judged(output: Any, sample: TokenBatch) -> Tensor:
    """The output at real tokens: [token, ...] where it has a row per token, else all of it."""
    values, real = logits_of(output), sample.query_mask
    return values[real.to(values.device)] if real is not None and values.shape[:2] == real.shape else values


def _check_outputs(model: Model, outside: Tensor, inside: Tensor) -> None:
    difference = (outside - inside).abs().max().item()
    allowed = TOLERANCE.get(outside.dtype, 0.1) * max(1e-3, outside.abs().max().item())
    if not difference <= allowed:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): its outputs change by {difference:.2g} when its attention "
            f"is captured (expected at most {allowed:.2g}), so the statistics would not be the model's; "
            f"attention implementation {configs(model.network)[0]._attn_implementation!r}"
        )


def _check_rows(model: Model, observer: Observer) -> None:
    for stats in observer.collected:
        mass = stats["row_mass"][stats["visible_keys"] > 0]
        low = 0.0 if model.backend == "interface" else 0.99
        if mass.numel() and not ((mass > low) & (mass < 1.01)).all():
            raise UserError(
                f"{model.name}: expected rows of attention weights that sum to 1; in {stats.call.module} they sum to "
                f"{mass.min():.4f} to {mass.max():.4f}, so this is no softmax over keys and its heads can't be measured"
            )


def logits_of(output: Any) -> Tensor:
    """The tensor a model's output is judged by: logits, or the last hidden state, or the first tensor."""
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    return next(value for value in output.values() if isinstance(value, Tensor))
