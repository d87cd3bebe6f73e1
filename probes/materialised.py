"""Attention calls of models outside the attention interface, caught where they call torch.

bloom, gptj and mpt compute their own softmax, falcon calls SDPA itself. A TorchFunctionMode sees both while one of the
model's attention modules runs. SDPA gives queries and keys, which are streamed as everywhere else; a softmax gives
logits and weights, exact but materialised, so those models are for short prompts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from ..kernels.inputs import AttentionInputs, Visibility
from .attention import evaluating
from .masks import tensor_mask

MAX_KEYS = 8192
"""Longest sequence for which the maps are materialised."""
MASK_GAP = 1000.0
"""A logit this far below the largest of its row is a mask: its weight is 0 in any precision."""
MASK_SCALE = 1e6
"""Models divide masked logits by their scale; the lowest number over this is still a mask."""
ATTENTION = re.compile(r"(?<!Flash)Attention$")
SOFTMAX = {torch.softmax, torch.nn.functional.softmax, Tensor.softmax}


@dataclass(frozen=True)
class MaterialisedCall:
    """Masked logits and weights [batch, head, query, key] of one call, as the model computed them."""

    logits: Tensor
    weights: Tensor

    @property
    def visible(self) -> Tensor:
        """bool [batch, head, query, key]: not masked by a logit far below its row's largest (-1e4, -inf, ...)."""
        lowest = torch.finfo(self.logits.dtype).min / MASK_SCALE
        return self.logits > (self.logits.amax(-1, keepdim=True) - MASK_GAP).clamp(min=lowest)

    def inputs(self) -> AttentionInputs:
        """A call of the same shape, to carry labels; its queries and keys are placeholders."""
        batch, heads, queries, keys = self.weights.shape
        empty = self.weights.new_zeros(1).expand
        causal = not bool(self.visible[..., 0, 1:].any()) if queries > 1 else True
        return AttentionInputs(
            query=empty(batch, heads, queries, 1),
            key=empty(batch, heads, keys, 1),
            visibility=Visibility(after=0 if causal else None, offset=keys - queries),
        )


Watch = Callable[[nn.Module, "MaterialisedCall | AttentionInputs"], None]


def sdpa_inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionInputs:
    """A call of `scaled_dot_product_attention` (same arguments) as `AttentionInputs`."""
    view, bias = Visibility(after=0 if is_causal else None), None
    if attn_mask is not None:
        batch, _, queries, _ = query.shape
        view, bias = tensor_mask(attn_mask.expand(batch, -1, queries, key.shape[2]))
    return AttentionInputs(
        query, key, value, scale=query.shape[-1] ** -0.5 if scale is None else scale, visibility=view, bias=bias
    )


@dataclass
class _Reader(TorchFunctionMode):
    """Passes every softmax over keys, and every SDPA call, made inside an attention module to `watch`."""

    watch: Watch
    inside: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        if self.inside and function in SOFTMAX and result.dim() in (3, 4):
            pair = (arguments[0].detach(), result.detach())
            heads = _heads(self.inside[-1]) if result.dim() == 3 else None
            if heads is not None:
                pair = tuple(tensor.unflatten(0, (-1, heads)) for tensor in pair)
            if pair[0].dim() == 4:
                self.watch(self.inside[-1], MaterialisedCall(*pair))
        elif self.inside and function is torch.nn.functional.scaled_dot_product_attention:
            self.watch(self.inside[-1], sdpa_inputs(*arguments, **(options or {})))
        return result


def _heads(module: nn.Module) -> int | None:
    """Heads of a module that folds them into the batch."""
    names = ("num_heads", "num_attention_heads", "n_head")
    return next((value for name in names if isinstance(value := getattr(module, name, None), int)), None)


@contextmanager
def capture_materialised(model: PreTrainedModel, watch: Watch) -> Iterator[None]:
    """Show every softmax and SDPA call of `model`'s attention modules to `watch` inside the block."""
    reader = _Reader(watch)
    with ExitStack() as stack:
        for module in model.modules():
            if ATTENTION.search(type(module).__name__):
                enter = module.register_forward_pre_hook(lambda entered, _: reader.inside.append(entered))
                leave = module.register_forward_hook(lambda *_: (reader.inside.pop(), None)[1], always_call=True)
                stack.callback(enter.remove)
                stack.callback(leave.remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(reader)
        yield
