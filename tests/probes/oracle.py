"""An independent oracle: the weights that each model's own eager code computes, call by call."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import torch
from headatlas.probes.attention import configs
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

_recorded: list[tuple[str, torch.Tensor]] = []


def _oracle(module, query, key, value, attention_mask, **options):
    eager = sys.modules[type(module).__module__].eager_attention_forward
    output, weights = eager(module, query, key, value, attention_mask, **options)
    _recorded.append((module, weights.detach().double()))
    return output, weights


AttentionInterface.register("oracle", _oracle)
AttentionMaskInterface.register("oracle", eager_mask)


@contextmanager
def _implementation(model, name):
    before = [(config, config._attn_implementation_internal) for config in configs(model)]
    for config, _ in before:
        config._attn_implementation_internal = name
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def eager_weights(model, inputs) -> list[tuple[torch.nn.Module, torch.Tensor]]:
    """(module, weights [batch, head, query, key] float64) of each attention call of one forward, in order."""
    _recorded.clear()
    with _implementation(model, "oracle"), torch.no_grad():
        model(**inputs)
    return list(_recorded)


def output_attentions(model, inputs) -> list[torch.Tensor]:
    """What `output_attentions=True` returns, for models outside the attention interface."""
    with torch.no_grad():
        return [weights.double() for weights in model(**inputs, output_attentions=True).attentions]
