"""Weights held against what the model computes, on eight prompts of one token each.

Biases cancel in the difference of two prompts; at the first position rotary embeddings turn nothing; with one key
the attention weight is 1 (a sink logit aside, which the captured output has in it). So, with y the output of the norm
before the attention and dy its difference between the prompts:

    dq = dy W_Q   dk = dy W_K   dv = dy W_V   d(attention output) = d(weighted values) W_O
    dx before layer 0 ~ dW_E    d(logits before scale and soft-cap) ~ d(final norm) W_U

Queries and keys are compared up to one factor of the layer (OPT scales its queries, YaRN both), or up to one of each
head and prompt where they have a norm of their own; the last two up to a factor as well. A model that computes its own
softmax shows no queries and keys: there the logits of each token for itself are compared, which have no biases to
cancel, and W_V and W_O together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.errors import UserError
from ..kernels.inputs import AttentionInputs
from .bridge import Places, Stored
from .models import Model
from .norms import writer_gain
from .weights import per_head
from .weights_trace import Trace, one_token_prompts, trace_of

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest error of what the weights predict, relative to its largest value."""

TINY = 1e-12


def unread_weights(model: Model, stored: Stored) -> dict[str, str]:
    """Weight -> why it is not what the model uses; raises where the attention itself can't be accounted for."""
    tokens = one_token_prompts(model)
    trace = trace_of(model, stored, tokens)
    allowed = TOLERANCE.get(model.network.dtype, 0.05)
    unread: dict[str, str] = {}
    for index, place in enumerate(stored.places):
        here = {name: stored.weights[name][index] for name in ("w_q", "w_k", "w_v", "w_o")}
        gains = _gains(model, place, here)
        wrong = _of_layer(trace, place, here, gains, allowed)
        unread |= {name: f"{why} in layer {place.layer}" for name, why in wrong.items() if name not in unread}
    if {"w_v", "w_o"} & set(unread):
        why = "; ".join(unread[name] for name in ("w_v", "w_o") if name in unread)
        raise UserError(f"{model.name} ({type(model.network).__name__}): its weights can't be read per head: {why}")
    return unread | _of_vocabulary(trace, stored, tokens, allowed)


def _of_layer(
    trace: Trace, place: Places, weights: dict[str, Tensor], gains: dict[str, Tensor], allowed: float
) -> dict[str, str]:
    """Weight -> what is wrong with it in one layer; `gains` are those of norms over queries and keys."""
    if not torch.equal(trace.outputs[place.norm], trace.inputs[place.attention]):
        return {"w_v": "its attention does not read the norm before it"}
    if place.post_norm and not torch.equal(trace.inputs[place.post_norm], trace.outputs[place.attention]):
        return {"w_o": "the norm after its attention does not read what the attention gives"}
    moved, heads = trace.moved(place.norm), weights["w_q"].shape[0]
    values = torch.einsum("d,hdk->hk", moved, per_head(weights["w_v"][None], heads)[0])
    wrong: dict[str, str] = {}
    if place.attention in trace.calls:
        call, output = trace.calls[place.attention]
        wrong |= _of_call(trace.outputs[place.norm][:, 0].float(), weights, call, gains, allowed)
        values = output[0, :, 0].float() - output[1, :, 0].float()
    else:
        wrong |= _of_softmax(trace, place, weights, allowed)
    written = torch.einsum("hk,hkd->d", values, weights["w_o"])
    if not _error(written, trace.moved(place.attention)) <= allowed:
        wrong["w_o"] = "W_O does not give what its attention writes"
    return wrong


def _of_call(
    read: Tensor, weights: dict[str, Tensor], call: AttentionInputs, gains: dict[str, Tensor], allowed: float
) -> dict[str, str]:
    """W_Q, W_K and W_V against the queries, keys and values of one call; `read` [prompt, d_model] goes in."""
    wrong = {}
    seen = {"w_q": call.query, "w_k": call.key, "w_v": call.value}
    for name, tensor in seen.items():
        got = tensor[:, :, 0].float()  # [prompt, head, d_head]
        rounding = (
            4 * torch.finfo(tensor.dtype).eps * got.abs().max()
        )  # a large bias leaves few digits to the difference
        given = torch.einsum("pd,hdk->phk", read, weights[name])
        given, got = (given * gains[name], got) if name in gains else (given[:1] - given[1:], got[:1] - got[1:])
        if name != "w_v":
            axes = (-1,) if name in gains else (-2, -1)
            sizes = [one.norm(dim=axes, keepdim=True).clamp(min=TINY) for one in (given, got)]
            given, got, rounding = given / sizes[0], got / sizes[1], rounding / sizes[1].mean()
        if given.shape != got.shape or not (given - got).abs().max() <= allowed * got.abs().max() + rounding:
            wrong[name] = f"{name.upper()} does not give the {_GIVEN[name]} of its attention"
    return wrong


def _of_softmax(trace: Trace, place: Places, weights: dict[str, Tensor], allowed: float) -> dict[str, str]:
    """W_Q W_K^T against the logits of a model with a softmax of its own, up to one factor."""
    read, heads = trace.outputs[place.norm][:, 0].float(), weights["w_q"].shape[0]
    query = torch.einsum("pd,hdk->phk", read, weights["w_q"])
    key = torch.einsum("pd,hdk->phk", read, per_head(weights["w_k"][None], heads)[0])
    given, got = (query * key).sum(-1), trace.logits.get(place.attention)
    if got is not None and given.shape == got.shape:
        given, got = (one / one.norm().clamp(min=TINY) for one in (given, got))
        if _error(given, got) <= allowed:
            return {}
    return dict.fromkeys(("w_q", "w_k"), "W_Q and W_K do not give the logits of its own softmax")


def _gains(model: Model, place: Places, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gains over queries and keys, [head or 1, d_head], where there are such norms."""
    found = {"w_q": place.query_norm, "w_k": place.key_norm}
    return {
        name: writer_gain(model.network, module, weights[name]).reshape(-1, weights[name].shape[-1])
        for name, module in found.items()
        if module is not None
    }


_GIVEN = {"w_q": "queries", "w_k": "keys", "w_v": "values"}


def _of_vocabulary(trace: Trace, stored: Stored, tokens: Tensor, allowed: float) -> dict[str, str]:
    """W_E and W_U, in direction: a model may scale its embedding or its logits."""
    wrong = {}
    first, w_e = stored.places[0], stored.weights["w_e"]
    embedded = w_e[tokens[0, 0]] - w_e[tokens[1, 0]]
    if first.layer == 0 and not _parallel(embedded, trace.moved(first.norm, came=True), allowed):
        wrong["w_e"] = "what stands before its first layer is not its embedding"
    logits = trace.moved(stored.final_norm) @ stored.weights["w_u"]
    if not _parallel(logits, trace.moved(stored.unembedding), allowed):
        wrong["w_u"] = "its logits are not the final norm times its unembedding"
    return wrong


def _error(predicted: Tensor, got: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((predicted - got).abs().max() / got.abs().max().clamp(min=TINY))


def _parallel(one: Tensor, other: Tensor, allowed: float) -> bool:
    one, other = one.float().flatten(), other.float().flatten().to(one.device)
    return one.shape == other.shape and float(torch.cosine_similarity(one, other, dim=0)) > 1 - allowed
