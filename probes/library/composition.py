"""How much a head reads of what one earlier head writes, from the weights: the largest over earlier heads.

Definitions in `probes/pairs.py`; `ha.composition(model)` gives every pair. Parts: q and k, what the head looks
for and what it is found by, and v, what it moves. Rotary positions are left out, so q and k hold as if query and key
stood at one place; the first layer has no earlier heads and is undefined.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..pairs import KINDS, affinities, baseline, composition_scores
from ..reading import reading
from ..weights import HeadWeights


@reading(
    needs={"w_q", "w_k", "w_v", "w_o"},
    parts=KINDS,
    title="Composition",
    formula="max over earlier heads a of |W_OV^a W| / (|W_OV^a| |W|) - its mean over random heads; W = W_QK (q), "
    "W_QK^T (k), W_OV (v); Frobenius norms",
    unit="share of the largest product",
    bounds=(-1, 1),
    higher="what this head reads is, more than by chance, what one earlier head writes",
    caveat="a fit of weights, not of what flows: neither that the earlier head attends where it matters nor that "
    "the composition is used; the largest of many earlier heads is above chance by itself; rotary positions left out",
    source="Elhage et al., A Mathematical Framework for Transformer Circuits, composition scores with the random "
    "baseline taken off",
)
def composition(weights: HeadWeights) -> Tensor:
    """How far the strongest composition with an earlier head is above chance, for queries, keys and values.

    >>> from headatlas.probes.worked_weights import two_layers
    >>> composed = two_layers(write=[1, 0, 0, 0], read=[1, 0, 0, 0])  # keys read it
    >>> q, k, v = composition.measure(composed)[1, 0].tolist()
    >>> k > 0.4 and q < 0 and v < 0
    True
    """
    parts = [largest(composition_scores(weights, kind) - baseline(weights, kind)) for kind in KINDS]
    return torch.stack(parts, dim=-1)


@reading(
    needs={"w_q", "w_k", "w_v", "w_o"},
    parts=KINDS,
    title="Subspace affinity",
    formula="max over earlier heads a of mean_i cos^2 theta_i, theta the principal angles between the columns of W "
    "(W_Q, W_K or W_V) and the rows of W_O^a",
    unit="mean squared cosine",
    bounds=(0, 1),
    higher="the directions that this head reads are those that one earlier head writes",
    caveat="every direction counts alike, however strongly it is read or written; two random subspaces have "
    "d_head / d_model; positions and attention left out",
    source="projection kernel over the rank, attention_head_subspace_affinity of TransformerLens; principal angles as "
    "in Bjorck and Golub, Numerical Methods for Computing Angles Between Linear Subspaces",
)
def subspace_affinity(weights: HeadWeights) -> Tensor:
    """The largest overlap of what the head reads with what one earlier head writes, for queries, keys and values.

    >>> from headatlas.probes.worked_weights import two_layers
    >>> composed = two_layers(write=[1, 0, 0, 0], read=[1, 0, 0, 0])
    >>> [round(value, 4) for value in subspace_affinity.measure(composed)[1, 0].tolist()]
    [0.0, 1.0, 0.0]
    """
    return torch.stack([largest(affinities(weights, kind)) for kind in KINDS], dim=-1)


def largest(pairs: Tensor) -> Tensor:
    """[layer, head] the largest over sources of [layer, head, layer, head]; NaN where there is none."""
    flat = pairs.flatten(2)
    best = flat.nan_to_num(-torch.inf).amax(-1)
    return torch.where(best.isinf(), torch.nan, best)
