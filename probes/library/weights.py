"""What one head's weights say: copying and matching scores from eigenvalues, and spectral norms.

With rows as inputs, the full OV circuit W_E W_V W_O W_U takes the logits' change when a token is read, vocabulary to
vocabulary, and the full QK circuit W_E W_Q W_K^T W_E^T the attention logit of one token for another. Both have rank
d_head, and their eigenvalues other than 0 are those of the d_head x d_head products W_O W_U W_E W_V and
W_K^T W_E^T W_E W_Q: nothing of vocabulary x vocabulary is formed. Source: Elhage et al., A Mathematical Framework for
Transformer Circuits, sections on copying and on eigenvalue analysis. Norms are folded (`probes/weights.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..pairs import triangle
from ..reading import reading
from ..weights import HeadWeights

FRAMEWORK = "Elhage et al., A Mathematical Framework for Transformer Circuits"
CHUNK = 8192
"""Tokens of the vocabulary that are multiplied at a time."""


@reading(
    needs={"w_e", "w_v", "w_o", "w_u"},
    title="Copying score",
    formula="sum_k Re lambda_k / sum_k |lambda_k|, lambda the eigenvalues of W_E W_V W_O W_U, W_U less its mean over "
    "the vocabulary",
    unit="share of eigenvalues",
    bounds=(-1, 1),
    higher="a token that is read has its own logit raised, and so have its like; -1: lowered",
    caveat="the direct path alone: not what later layers, or an MLP between embedding and head, make of it; the scale "
    "of norms and the attention are left out; tied embeddings favour neither sign",
    source=f"{FRAMEWORK}, summarising OV and QK matrices",
)
def copying_score(weights: HeadWeights) -> Tensor:
    """Whether the OV circuit of the head copies tokens (1) or suppresses what it reads (-1).

    >>> from headatlas.probes.worked_weights import weights_of
    >>> copies = weights_of(w_v=[[1, 0], [0, 1]], w_o=[[1, 0], [0, 1]])
    >>> copying_score.measure(copies).item(), copying_score.measure(weights_of(w_o=[[-1, 0], [0, -1]])).item()
    (1.0, -1.0)
    """
    between = vocabulary_product(weights.w_u, weights.w_e)  # [d_model, d_model]
    return eigenvalue_share(weights.w_o.double() @ between @ weights.v_per_head.double())


@reading(
    needs={"w_e", "w_q", "w_k"},
    title="Matching score",
    formula="sum_k Re lambda_k / sum_k |lambda_k|, lambda the eigenvalues of W_E W_Q W_K^T W_E^T",
    unit="share of eigenvalues",
    bounds=(-1, 1),
    higher="a token attends to itself and its like; -1: away from them",
    caveat="rotary and learned positions are left out, as if query and key stood at one place, and so is what earlier "
    "layers add to the embedding: an induction head, which matches through an earlier head, need not have it",
    source=f"{FRAMEWORK}, summarising OV and QK matrices",
)
def matching_score(weights: HeadWeights) -> Tensor:
    """Whether the QK circuit of the head matches equal tokens (1) or avoids them (-1).

    >>> from headatlas.probes.worked_weights import weights_of
    >>> matching_score.measure(weights_of(w_q=[[1, 0], [0, 1]], w_k=[[1, 0], [0, 1]])).item()
    1.0
    >>> matching_score.measure(weights_of(w_q=[[0, 1], [-1, 0]])).item()  # a quarter turn: i and -i
    0.0
    """
    between = vocabulary_product(weights.w_e.T, weights.w_e)
    return eigenvalue_share(weights.k_per_head.transpose(-2, -1).double() @ between @ weights.w_q.double())


@reading(
    needs={"w_v", "w_o"},
    title="OV norm",
    formula="largest singular value of W_V W_O, the norm's gain folded in",
    unit="residual stream out per normalised in",
    bounds=(0, None),
    higher="the head can write much of what it reads",
    caveat="the most over all directions, used or not; an attention on a token with a small value writes little still",
    source="spectral norm of the OV circuit of Elhage et al., A Mathematical Framework for Transformer Circuits",
    scale_free=False,
)
def ov_norm(weights: HeadWeights) -> Tensor:
    """The largest gain of the OV circuit over directions of the residual stream.

    >>> from headatlas.probes.worked_weights import weights_of
    >>> round(ov_norm.measure(weights_of(w_v=[[2, 0], [0, 1]], w_o=[[0, 3], [1, 0]])).item(), 4)
    6.0
    """
    return spectral_norm(weights.v_per_head, weights.w_o.transpose(-2, -1))


@reading(
    needs={"w_q", "w_k"},
    title="QK norm",
    formula="largest singular value of W_Q W_K^T, the norm's gain folded in, not divided by sqrt(d_head)",
    unit="attention logit per normalised query and key",
    bounds=(0, None),
    higher="attention logits can become large, and so attention sharp",
    caveat="the most over all directions, used or not; biases and positions left out",
    source="Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse, section 3.1",
    scale_free=False,
)
def qk_norm(weights: HeadWeights) -> Tensor:
    """The largest gain of the QK circuit over pairs of directions of the residual stream.

    >>> from headatlas.probes.worked_weights import weights_of
    >>> round(qk_norm.measure(weights_of(w_q=[[2, 0], [0, 1]], w_k=[[0, 1], [5, 0]])).item(), 4)
    10.0
    """
    return spectral_norm(weights.w_q, weights.k_per_head)


def vocabulary_product(left: Tensor, right: Tensor) -> Tensor:
    """left [d_model, vocabulary] @ right [vocabulary, d_model] in float64, some tokens at a time."""
    pieces = zip(left.split(CHUNK, 1), right.split(CHUNK, 0), strict=True)
    return sum((one.double() @ other.double() for one, other in pieces), torch.zeros((), dtype=torch.float64))


def eigenvalue_share(product: Tensor) -> Tensor:
    """sum Re lambda / sum |lambda| of [..., d_head, d_head]; NaN where every eigenvalue is 0."""
    whole = torch.linalg.eigvals(product).abs().sum(-1)
    trace = product.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where(whole > 0, trace / whole, torch.nan)


def spectral_norm(left: Tensor, right: Tensor) -> Tensor:
    """Largest singular value of left @ right^T for [..., d_model, d_head] each, on d_head x d_head."""
    return torch.linalg.matrix_norm(triangle(left) @ triangle(right).transpose(-2, -1), 2)
