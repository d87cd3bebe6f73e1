"""The norms of a model folded into the weights of its heads: from weights as stored to `HeadWeights`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .bridge import Stored, stored_weights
from .models import Model
from .norms import centre, norm_of, writer_gain
from .weights import HeadWeights
from .weights_check import unread_weights

AFTER = {"w_q": "query_norm", "w_k": "key_norm", "w_o": "post_norm"}
"""Weight -> the norm that may stand after it."""


def head_weights(model: Model) -> HeadWeights:
    """The weights of a model's heads, folded and held against what it computes; read anew at each call.

    Takes seconds and a float32 copy of the weights of attention, embedding and unembedding.
    """
    stored = stored_weights(model)
    return HeadWeights(**fold(model.network, stored), unread=unread_weights(model, stored))


def fold(network: nn.Module, stored: Stored) -> dict[str, Any]:
    """The fields of `HeadWeights` that come of folding: the six weights, layers, centred, rescaled."""
    weights = dict(stored.weights)
    width = weights["w_q"].shape[2]
    norms = [norm_of(network.get_submodule(place.norm), width, place.norm) for place in stored.places]
    final = norm_of(network.get_submodule(stored.final_norm), width, stored.final_norm)
    for name in ("w_q", "w_k", "w_v"):
        weights[name] = torch.stack([one.fold_reader(part) for one, part in zip(norms, weights[name], strict=True)])
    weights["w_u"] = centre(final.fold_reader(weights["w_u"]), -1)
    rescaled: dict[str, str] = {}
    for name, after in AFTER.items():
        modules = [getattr(place, after) for place in stored.places]
        if any(modules):
            gains = [writer_gain(network, module, part) for module, part in zip(modules, weights[name], strict=True)]
            weights[name] = torch.stack([part * gain for part, gain in zip(weights[name], gains, strict=True)])
            rescaled[name] = next(module for module in modules if module)
    centred = final.centred and all(norm.centred for norm in norms)
    if centred:
        weights |= {"w_o": centre(weights["w_o"], -1), "w_e": centre(weights["w_e"], -1)}
    layers = tuple(place.layer for place in stored.places)
    return {**weights, "layers": layers, "centred": centred, "rescaled": rescaled}
