"""The weights of every head as the residual stream meets them: norms folded, biases left out, one matrix per head.

`head_weights(model)` of `folding.py` reads them through TransformerLens (`bridge.py`), folds the norms, and holds the
weights against what the model computes on a few tokens (`weights_check.py`): a model that fails is refused, a part that
fails is named in `unread`.

Folding: W_Q, W_K and W_V are multiplied by the gain of the norm before them, and centred over the residual stream where
that norm centres; W_U likewise with the final norm, and over the vocabulary too, since the softmax does not see a
constant. Where every norm centres, W_E and W_O are centred as well: nothing reads their mean. A gain on queries and
keys, or after the attention, is multiplied in. The scale of a norm, which depends on the token, is not folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

NAMES = ("w_q", "w_k", "w_v", "w_o", "w_e", "w_u")
"""What a reading of weights may ask for."""


@dataclass(frozen=True)
class HeadWeights:
    """Weights in float32 with rows as inputs: x @ w_q[layer, head] is a query."""

    w_q: Tensor  # [layer, head, d_model, d_head]
    w_k: Tensor  # [layer, kv_head, d_model, d_head]
    w_v: Tensor  # [layer, kv_head, d_model, d_head]
    w_o: Tensor  # [layer, head, d_head, d_model]
    w_e: Tensor  # [vocabulary, d_model]
    w_u: Tensor  # [d_model, vocabulary]
    layers: tuple[int, ...] = ()
    """The number of each layer in the model: layers without attention have no row."""
    centred: bool = False
    """Every norm takes the mean away: the residual stream has d_model - 1 directions."""
    rescaled: Mapping[str, str] = field(default_factory=dict)
    """Weight -> the norm that rescales what it gives, token by token: its direction is known, its size is not."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Weight -> why it can't be read; its values mean nothing."""

    @property
    def k_per_head(self) -> Tensor:
        """w_k of the KV head that each head reads, [layer, head, d_model, d_head]."""
        return per_head(self.w_k, self.w_q.shape[1])

    @property
    def v_per_head(self) -> Tensor:
        """w_v of the KV head that each head reads, [layer, head, d_model, d_head]."""
        return per_head(self.w_v, self.w_q.shape[1])

    @property
    def directions(self) -> int:
        """Dimensions of the residual stream that a head can read."""
        return self.w_q.shape[2] - self.centred


def per_head(weight: Tensor, heads: int) -> Tensor:
    """[layer, kv_head, ...] for each head: heads h * n to (h + 1) * n - 1 share KV head h."""
    return weight.repeat_interleave(heads // weight.shape[1], dim=1)
