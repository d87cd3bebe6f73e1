"""How much a head reads what earlier heads write, from the weights: composition scores and subspace affinity.

With rows as inputs, head a writes x W_OV with W_OV = W_V W_O, and head b compares x W_Q and y W_K, so W_QK = W_Q W_K^T:

    q: |W_OV^a W_QK^b| / (|W_OV^a| |W_QK^b|)    k: |W_OV^a W_QK^b^T| / (...)    v: |W_OV^a W_OV^b| / (...)

in Frobenius norms (Elhage et al., A Mathematical Framework for Transformer Circuits). Two random heads do not score 0
but about 1 / sqrt(d_model), so the mean over random matrices of the same shapes is taken off, as Elhage et al. do;
their norms cancel. The affinity of a reading matrix with a writing matrix is the mean squared cosine of the principal
angles between the directions it reads and those the other writes.

Nothing of d_model x d_model is formed: |W_V W_O M| = |R W_O M| with R the triangle of W_V = Q R.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.heads import head_name
from .weights import HeadWeights

KINDS = ("q", "k", "v")
DRAWS = 64
"""Pairs of random heads that the baseline is the mean of."""


def writing(weights: HeadWeights) -> Tensor:
    """W_OV of each head up to a rotation of its rows, [layer, head, d_head, d_model]."""
    return triangle(weights.v_per_head) @ weights.w_o


def reading_of(weights: HeadWeights, kind: str) -> Tensor:
    """W_QK, its transpose or W_OV up to a rotation of its columns, [layer, head, d_model, d_head]."""
    if kind == "v":
        return weights.v_per_head @ triangle(weights.w_o.transpose(-2, -1)).transpose(-2, -1)
    near, far = (weights.w_q, weights.k_per_head) if kind == "q" else (weights.k_per_head, weights.w_q)
    return near @ triangle(far).transpose(-2, -1)


def triangle(matrix: Tensor) -> Tensor:
    """R of the matrix [..., d_model, d_head] = Q R."""
    return torch.linalg.qr(matrix, mode="r").R


def composition_scores(weights: HeadWeights, kind: str) -> Tensor:
    """[target layer, target head, source layer, source head], NaN where the source is not earlier or a norm is 0."""
    write, read = writing(weights), reading_of(weights, kind)
    write = write / write.norm(dim=(-2, -1), keepdim=True)
    read = read / read.norm(dim=(-2, -1), keepdim=True)
    return _pairs(write, read).sqrt()


def affinities(weights: HeadWeights, kind: str) -> Tensor:
    """Mean squared cosine of the principal angles, in the order of `composition_scores`."""
    read = {"q": weights.w_q, "k": weights.k_per_head, "v": weights.v_per_head}[kind]
    write_basis, write_rank = _basis(weights.w_o.transpose(-2, -1))
    read_basis, read_rank = _basis(read)
    shared = _pairs(write_basis.transpose(-2, -1), read_basis)
    angles = torch.minimum(read_rank[:, :, None, None], write_rank[None, None])
    return torch.where(angles > 0, shared / angles, torch.nan)


def _basis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """An orthonormal basis of the columns of [..., d_model, d_head], 0 beyond the rank, and the rank."""
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    floor = values[..., :1] * max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
    kept = values > floor
    return left * kept[..., None, :], kept.sum(-1)


def _pairs(write: Tensor, read: Tensor) -> Tensor:
    """Squared Frobenius norm of every write [d, d_model] times read [d_model, d] of a later layer."""
    layers, heads, inner, width = write.shape
    scores = torch.full((layers, heads, layers, heads), torch.nan, device=write.device)
    for target in range(1, layers):
        columns = read[target].permute(1, 0, 2).reshape(width, -1)
        for source in range(target):
            product = write[source].reshape(-1, width) @ columns
            squared = product.square().view(heads, inner, heads, -1).sum((1, 3))
            scores[target, :, source] = squared.T
    return scores


def baseline(weights: HeadWeights, kind: str, *, seed: int = 0) -> float:
    """The mean score of two heads of Gaussian matrices of these shapes, over `DRAWS` seeded pairs.

    Where every norm centres, the residual stream has one direction less, and so have the random heads.
    """
    d_model, d_value, d_query = weights.directions, weights.w_v.shape[-1], weights.w_q.shape[-1]
    inner = d_value if kind == "v" else d_query
    random = torch.Generator().manual_seed(seed)
    scores = []
    for _ in range(DRAWS):
        v, o, near, far = (torch.randn(d_model, width, generator=random) for width in (d_value, d_value, inner, inner))
        write, read = triangle(v) @ o.T, near @ triangle(far).T
        scores.append((write @ read).norm() / (write.norm() * read.norm()))
    return float(torch.stack(scores).mean())


def pair_table(weights: HeadWeights, *, seed: int = 0, affinity: bool = True) -> pd.DataFrame:
    """Every pair of heads of different layers, the highest above chance first; columns as in `ha.composition`."""
    tables = []
    for kind in KINDS:
        scores = composition_scores(weights, kind).cpu()
        near = affinities(weights, kind).cpu() if affinity else torch.full_like(scores, torch.nan)
        pairs = _earlier(weights)
        place = (pairs[:, 0], pairs[:, 1], pairs[:, 2], pairs[:, 3])
        table = pd.DataFrame(_names(weights, pairs), columns=["target", "source"])
        table.insert(0, "kind", kind)
        chance = baseline(weights, kind, seed=seed)
        tables.append(table.assign(score=scores[place].numpy(), baseline=chance, affinity=near[place].numpy()))
    whole = pd.concat(tables, ignore_index=True)[["kind", "source", "target", "score", "baseline", "affinity"]]
    order = np.argsort(np.asarray(whole["baseline"]) - np.asarray(whole["score"]), kind="stable")
    return whole.iloc[order].reset_index(drop=True)


def _earlier(weights: HeadWeights) -> Tensor:
    """The pairs (target layer, target head, source layer, source head) of rows with an earlier source, [pair, 4]."""
    layers, heads = weights.w_q.shape[:2]
    index = torch.cartesian_prod(*(torch.arange(size) for size in (layers, heads, layers, heads)))
    return index[index[:, 2] < index[:, 0]]


def _names(weights: HeadWeights, pairs: Tensor) -> Iterator[tuple[str, str]]:
    numbers = weights.layers or tuple(range(weights.w_q.shape[0]))
    for target, head, source, other in pairs.tolist():
        yield head_name(numbers[target], head), head_name(numbers[source], other)
