"""Head weights written by hand: for worked examples and tests of readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .weights import HeadWeights

EYE = ((1.0, 0.0), (0.0, 1.0))


def weights_of(
    *, w_q: Any = EYE, w_k: Any = EYE, w_v: Any = EYE, w_o: Any = EYE, w_e: Any = None, w_u: Any = None
) -> HeadWeights:
    """One layer of one head; embedding and unembedding are the identity unless given."""
    q, k, v, o = (_matrix(value)[None, None] for value in (w_q, w_k, w_v, w_o))
    eye = torch.eye(q.shape[2])
    return HeadWeights(q, k, v, o, eye if w_e is None else _matrix(w_e), eye if w_u is None else _matrix(w_u))


def two_layers(write: Sequence[float], read: Sequence[float]) -> HeadWeights:
    """Two layers of one head with d_head 1: layer 0 writes along `write`, the keys of layer 1 read along `read`.

    Every other matrix is along the last axis alone.
    """
    last = torch.zeros(len(write))
    last[-1] = 1.0
    reads = last[None, None, :, None].repeat(2, 1, 1, 1)  # [layer, head, d_model, d_head]
    keys, writes = reads.clone(), last[None, None, None, :].repeat(2, 1, 1, 1)
    writes[0, 0, 0], keys[1, 0, :, 0] = _matrix(write), _matrix(read)
    eye = torch.eye(len(write))
    return HeadWeights(w_q=reads, w_k=keys, w_v=reads, w_o=writes, w_e=eye, w_u=eye)


def random_weights(
    *, layers: int = 3, heads: int = 4, kv_heads: int = 2, d_model: int = 24, d_head: int = 6, vocabulary: int = 50,
    scale: float = 1.0, seed: int = 0,
) -> HeadWeights:  # fmt: skip
    """Gaussian matrices; with fewer KV heads than heads, some heads share theirs."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=random)

    return HeadWeights(
        w_q=draw(layers, heads, d_model, d_head), w_k=draw(layers, kv_heads, d_model, d_head),
        w_v=draw(layers, kv_heads, d_model, d_head), w_o=draw(layers, heads, d_head, d_model),
        w_e=draw(vocabulary, d_model), w_u=draw(d_model, vocabulary),
    )  # fmt: skip


def _matrix(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
