"""A few random inputs of the kind a model takes, to see that it can be captured."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from ..data.tokens import TokenBatch
from .batching import batch
from .models import Model
from .sites import text_config

LENGTH = 24
"""Tokens of each of the two rows."""
PADDED = 7
"""Padding tokens at the end of the second row."""


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
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[1, LENGTH - PADDED :] = "pixel_values" in names
    return batch(model, tokens, attention_mask=real, **extra)


def _required(model: Model) -> set[str]:
    accepted = set(inspect.signature(model.network.forward).parameters)
    both = {"input_ids", "pixel_values"} <= accepted
    contrastive = both and hasattr(model.network.config, "text_config") and hasattr(model.network, "logit_scale")
    return {"input_ids", "pixel_values"} if contrastive else set()


def _without_specials(tokens: Tensor, config: Any) -> Tensor:
    """Random ids that are no image, video or padding token (those change what the model does)."""
    facts = [*vars(config).items(), *vars(text_config(config)).items()]
    bad = {value for name, value in facts if name.endswith(("token_id", "token_index")) and isinstance(value, int)}
    safe = next((value for value in range(3, 1000) if value not in bad), 0)
    return torch.tensor([[safe if int(token) in bad else int(token) for token in row] for row in tokens])
