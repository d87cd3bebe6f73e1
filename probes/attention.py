"""Attention calls caught inside a running transformers model, without an n x n tensor.

`capture(model, watch)` registers one attention function and one mask function under the same name, switches every
config of the model to it, and hands each call to `watch` as `AttentionInputs`. The function returns the attention
output of the model's own rule (window, soft-cap, sink logits, position bias), so logits stay what they were. Whatever
happens inside the block, the model is left as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ..kernels.inputs import AttentionInputs, Visibility
from ..kernels.sdpa import attention_output
from .masks import MaskRule, implied_visibility, mask_rule, tensor_mask

NAME = "headatlas"
Watch = Callable[[torch.nn.Module, AttentionInputs], Tensor | None]
"""watch(module, inputs) -> the attention output [batch, head, query, d_head] if it computed one, else None."""

HARMLESS = frozenset(
    "position_ids use_cache output_attentions output_hidden_states output_router_logits cache_position return_dict "
    "cu_seq_lens_q cu_seq_lens_k max_length_q max_length_k num_items_in_batch deterministic logits_to_keep "
    "sliding_window encoder_hidden_states encoder_attention_mask past_key_values is_training token_type_ids "
    "mm_token_type_ids image_grid_thw attention_type layer_idx head_mask position_embeddings".split()
)
"""Keyword arguments that leave the distribution alone (a window is already in the mask)."""

_watch: ContextVar[Watch | None] = ContextVar("headatlas_watch", default=None)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | MaskRule | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that models call: the model's own output, and the call shown to whoever watches."""
    unknown = sorted(name for name, value in others.items() if value is not None and name not in HARMLESS)
    if unknown:
        raise NotImplementedError(
            f"{type(module).__name__} passes {', '.join(unknown)} to its attention function; headatlas does not know "
            "whether that changes the weights, so it refuses to report statistics of this model"
        )
    visibility, mask_bias = _visibility(module, query, key, attention_mask, is_causal)
    biases = [bias for bias in (position_bias, mask_bias) if bias is not None]
    inputs = AttentionInputs(
        query=query,
        key=key,
        value=value,
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        visibility=visibility,
        softcap=softcap,
        sink_logits=s_aux,
        bias=sum(biases[1:], biases[0]) if biases else None,
    )
    watch = _watch.get()
    output = watch(module, inputs) if watch is not None else None
    if output is None:
        output, _ = attention_output(inputs)
    return output.to(value.dtype).transpose(1, 2).contiguous(), None


def _visibility(
    module: torch.nn.Module, query: Tensor, key: Tensor, mask: Tensor | MaskRule | None, is_causal: bool | None
) -> tuple[Visibility, Tensor | None]:
    """Who may see whom, and what a float mask adds to the logits."""
    if isinstance(mask, MaskRule):
        return mask.visibility, None
    if mask is None:
        return implied_visibility(module, query, key, is_causal), None
    return tensor_mask(mask[..., : key.shape[2]])


AttentionInterface.register(NAME, attention_forward)
AttentionMaskInterface.register(NAME, mask_rule)


def configs(model: PreTrainedModel) -> list[Any]:
    """Every config object that some module of the model reads its attention implementation from."""
    found: dict[int, Any] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            found[id(config)] = config
            for name in getattr(config, "sub_configs", {}):
                inner = getattr(config, name, None)
                if inner is not None:
                    found[id(inner)] = inner
    return list(found.values())


@contextmanager
def evaluating(model: torch.nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, and no gradients unless asked for; afterwards every module trains again that did."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def capture(model: PreTrainedModel, watch: Watch, *, gradients: bool = False) -> Iterator[None]:
    """Show every attention call of `model` to `watch` inside the block; evaluation mode, no gradients by default."""
    before = [(config, config.__dict__.get("_attn_implementation_internal")) for config in configs(model)]
    token = _watch.set(watch)
    try:
        for config, _ in before:
            config.__dict__["_attn_implementation_internal"] = NAME
        with evaluating(model, gradients=gradients):
            yield
    finally:
        for config, implementation in before:
            config.__dict__["_attn_implementation_internal"] = implementation
        _watch.reset(token)
