"""The weights of a transformers model as stored, one matrix per head, through TransformerLens' TransformerBridge.

The bridge knows, for about a hundred architectures, which module is which and how joined projections are cut into
heads. What it gives (transformer-lens 4.3): W_Q and W_O per head, W_K and W_V per KV head, W_E and W_U, all as stored,
in the model's data type, no norm folded. `enable_compatibility_mode` would fold norms in place; here `folding.py` does
it on copies. A bridge also replaces the modules of the model it is given, so it gets a twin whose modules are copies
and whose parameters are the model's own.

Not read: encoder-decoders (two residual streams), norms after the attention alone (BERT, OLMo 2: the stream is
rescaled between layers or read without a norm), attention without one matrix per head (MLA), architectures the bridge
does not know, weights that are not stored as matrices (quantised).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..data.errors import UserError, first_line
from .models import Model

MATRICES = {"w_q": "W_Q", "w_k": "W_K", "w_v": "W_V", "w_o": "W_O", "w_e": "W_E", "w_u": "W_U"}


@dataclass(frozen=True)
class Places:
    """Where the modules of one attention layer stand in the model, by name; None where the architecture has none."""

    layer: int
    attention: str
    norm: str
    post_norm: str | None
    query_norm: str | None
    key_norm: str | None


@dataclass(frozen=True)
class Stored:
    """The weights as stored, and where their modules are."""

    weights: dict[str, Tensor]
    """Name of `HeadWeights` -> the tensor, float32, nothing folded."""
    places: tuple[Places, ...]
    final_norm: str
    unembedding: str


def stored_weights(model: Model) -> Stored:
    """What TransformerLens gives for this model; a model it can't give is refused in one line."""
    network, kind = model.network, type(model.network).__name__
    if getattr(network.config, "is_encoder_decoder", False):
        raise UserError(f"{model.name} ({kind}) has two residual streams: weights are read of decoders alone")
    try:
        with _quiet():
            bridge = _bridge(network)
            places = tuple(_places(layer, block) for layer, block in bridge.blocks_with("attn"))
            weights = {name: getattr(bridge, theirs).detach().float() for name, theirs in MATRICES.items()}
            stored = Stored(weights, places, bridge.ln_final.name, bridge.unembed.name)
    except UserError as error:
        raise UserError(f"{model.name} ({kind}): {error}") from None
    except Exception as error:
        raise UserError(
            f"{model.name} ({kind}): transformer-lens can't read its weights per head, so there is no reading of "
            f"weights for it; {first_line(error)}"
        ) from None
    _check_shapes(model, stored)
    return stored


def _bridge(network: PreTrainedModel) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    twin = copy.deepcopy(network, {id(one): one for one in network.parameters()})
    return build_bridge_from_module(twin, type(network).__name__, hf_config=twin.config)


def _places(layer: int, block: Any) -> Places:
    def name(owner: Any, part: str, under: str) -> str | None:
        inner = owner._modules.get(part)
        return None if inner is None or not inner.name else f"{under}.{inner.name}"

    attention, norm = name(block, "attn", block.name), name(block, "ln1", block.name)
    if attention is None or norm is None:
        raise UserError("its attention has no norm before it; expected heads that read a norm of the residual stream")
    inside = (name(block.attn, part, attention) for part in ("q_norm", "k_norm"))
    return Places(layer, attention, norm, name(block, "ln1_post", block.name), *inside)


def _check_shapes(model: Model, stored: Stored) -> None:
    shapes = {name: list(weight.shape) for name, weight in stored.weights.items()}
    layers, heads, width, d_head = shapes["w_q"] if len(shapes["w_q"]) == 4 else (0, 0, 0, 0)
    fits = (
        layers == len(stored.places)
        and shapes["w_k"][::2] == [layers, width] and shapes["w_k"][3] == d_head and heads % shapes["w_k"][1] == 0
        and shapes["w_v"][:3] == shapes["w_k"][:3] and shapes["w_o"] == [layers, heads, shapes["w_v"][3], width]
        and shapes["w_e"][1] == width and shapes["w_u"][0] == width
    )  # fmt: skip
    if not fits:
        raise UserError(
            f"{model.name} ({type(model.network).__name__}): expected one matrix per layer and head, and "
            f"embeddings as wide as they are; came {shapes}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that the bridge logs about use that is not made of it here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
