"""The promise, checked at load: what is captured is what the model computed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from .attention import configs
from .forward import _Observer, batch, model_inputs, run
from .models import Model, logits_of

TOLERANCE = {torch.float32: 2e-4, torch.float64: 2e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of outputs inside and outside the capture, relative to their largest value."""
LENGTH = 12


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
    observer = _Observer(model, sample, frozenset({"row_mass", "logsumexp"}))
    inside = logits_of(run(model, sample, observer))
    if not observer.collected:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): expected attention calls through transformers' attention "
            "interface, SDPA or softmax, saw none; its heads can't be measured"
        )
    _check_outputs(model, outside, inside)
    _check_rows(model, observer)
    model.calls[:] = [stats.call for stats in observer.collected]


def _plain(model: Model, sample: TokenBatch) -> Tensor:
    training = [module for module in model.network.modules() if module.training]
    model.network.eval()
    try:
        with torch.no_grad():
            return logits_of(model.network(**model_inputs(model, sample)))
    finally:
        for module in training:
            module.training = True


def _check_outputs(model: Model, outside: Tensor, inside: Tensor) -> None:
    difference = (outside - inside).abs().max().item()
    allowed = TOLERANCE.get(outside.dtype, 0.1) * max(1e-3, outside.abs().max().item())
    if not difference <= allowed:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): its outputs change by {difference:.2g} when its attention "
            f"is captured (expected at most {allowed:.2g}), so the statistics would not be the model's; "
            f"attention implementation {configs(model.network)[0]._attn_implementation!r}"
        )


def _check_rows(model: Model, observer: _Observer) -> None:
    for stats in observer.collected:
        mass = stats["row_mass"][stats["visible_keys"] > 0]
        low = 0.0 if model.backend == "interface" else 0.99
        if mass.numel() and not ((mass > low) & (mass < 1.01)).all():
            raise UserError(
                f"{model.name}: expected rows of attention weights that sum to 1; in {stats.call.module} they sum to "
                f"{mass.min():.4f} to {mass.max():.4f}, so this is no softmax over keys and its heads can't be measured"
            )


def sample_batch(model: Model) -> TokenBatch | None:
    """A few random inputs of the kind the model takes; None where its kind is not known."""
    config, random = model.network.config, torch.Generator().manual_seed(0)
    extra: dict[str, Any] = {}
    names = {model.network.main_input_name, *_required(model)}
    if "pixel_values" in names:
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", None)
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else tuple(size)
        extra["pixel_values"] = torch.randn(2, getattr(vision, "num_channels", 3), height, width, generator=random)
    if "input_features" in names:
        if not hasattr(config, "num_mel_bins") or not hasattr(config, "max_source_positions"):
            return None
        extra["input_features"] = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions, generator=random)
    vocabulary = getattr(model.config, "vocab_size", None)
    tokens = torch.randint(min(5, (vocabulary or 6) - 1), vocabulary or 6, (2, LENGTH), generator=random)
    tokens = _without_specials(tokens, config)
    if getattr(config, "is_encoder_decoder", False):
        extra["decoder_input_ids"] = tokens
    if "input_ids" not in names:
        return batch(model, None, **extra) if extra else None
    return batch(model, tokens, **extra)


def _required(model: Model) -> set[str]:
    import inspect

    accepted = set(inspect.signature(model.network.forward).parameters)
    both = {"input_ids", "pixel_values"} <= accepted
    contrastive = both and hasattr(model.network.config, "text_config") and hasattr(model.network, "logit_scale")
    return {"input_ids", "pixel_values"} if contrastive else set()


def _without_specials(tokens: Tensor, config: Any) -> Tensor:
    """Random ids that are no image, video or padding token (those change what the model does)."""
    special = [value for name, value in vars(config).items() if name.endswith(("token_id", "token_index"))]
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    special += [value for name, value in vars(text).items() if name.endswith(("token_id", "token_index"))]
    bad = {value for value in special if isinstance(value, int)}
    safe = next((value for value in range(3, 1000) if value not in bad), 0)
    return torch.tensor([[safe if int(token) in bad else int(token) for token in row] for row in tokens])
