"""Models with random weights of a real one's size, drawn where they are needed: what a bench runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.errors import UserError

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

    def weights(self, width: int) -> int:
        """How many numbers it holds with heads of `width`; biases, norms and positions are not counted."""
        stream, shared = self.heads * width, self.kv_heads * width
        if self.feed_forward is None:
            return self.vocabulary * stream + 12 * self.layers * stream**2
        layer = 2 * stream * stream + 2 * stream * shared + 3 * stream * self.feed_forward
        return 2 * self.vocabulary * stream + self.layers * layer

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


def check_fits(name: str, widths: Sequence[int] | None, free: Callable[[], float | None]) -> None:
    """Refuse a random model whose float32 weights are more than the `free()` bytes of this machine's memory."""
    kind = RANDOM_MODELS[name]
    for width in widths or kind.widths:
        need, have = 4.0 * kind.weights(width), free()
        if have is not None and need > have:
            raise UserError(
                f"{name} with heads of {width} takes {need / 1e9:.1f} GB on a CPU, this machine has {have / 1e9:.1f} "
                f"GB free; add --device cuda, or use smaller --widths or another --model"
            )


def free_memory() -> float | None:
    """Bytes that are free; None where the system does not say."""
    path = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text()) if path.exists() else None
    return None if found is None else 1024.0 * int(found[1])


RANDOM_MODELS = {
    "gpt2": RandomModel(12, 12, 12, 50257, widths=(16, 64), lengths=(512, 2048, 4096)),
    "llama-8b": RandomModel(32, 32, 8, 32000, widths=(128,), lengths=(32768, 131072), feed_forward=14336),
}
"""GPT-2 small's layers and vocabulary; a Llama 3 8B's layers, Llama 2's vocabulary: 7.2 billion weights, 14.5 GB."""
