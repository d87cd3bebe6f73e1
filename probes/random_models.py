"""Models with random weights of a real one's size, drawn where they are needed: what a bench runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import Model


@dataclass(frozen=True)
class RandomModel:
    """A size, and the head sizes and lengths that it is timed with."""

    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    widths: tuple[int, ...]
    lengths: tuple[int, ...]
    feed_forward: int | None = None
    """Width of a gated feed-forward layer; None: a GPT-2, which has four times the width of its stream."""

    def make(self, width: int, length: int, device: str = "cpu") -> Model:
        """The model with heads of `width`, for `length` tokens; float32 on a CPU, bfloat16 elsewhere."""
        import torch
        from transformers import AutoModelForCausalLM

        from .loading import load

        torch.manual_seed(0)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        with torch.device(device):  # billions of weights are drawn in seconds there, in minutes on a CPU
            network = AutoModelForCausalLM.from_config(self.config(width, length), dtype=dtype)
        return load((network.eval(), None), check=False)

    def config(self, width: int, length: int) -> Any:
        """What transformers makes the network of."""
        from transformers import GPT2Config, LlamaConfig

        ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}
        if self.feed_forward is None:
            return GPT2Config(
                vocab_size=self.vocabulary, n_embd=self.heads * width, n_layer=self.layers, n_head=self.heads,
                n_positions=length, **ends,
            )  # fmt: skip
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.heads * width, intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            head_dim=width, max_position_embeddings=length, **ends,
        )  # fmt: skip


RANDOM_MODELS = {
    "gpt2": RandomModel(12, 12, 12, 50257, widths=(16, 64), lengths=(512, 2048, 4096)),
    "llama-8b": RandomModel(32, 32, 8, 32000, widths=(128,), lengths=(32768, 131072), feed_forward=14336),
}
"""GPT-2 small's layers and vocabulary; a Llama 3 8B's layers, Llama 2's vocabulary: 7.2 billion weights, 14.5 GB."""
