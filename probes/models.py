"""A transformers model as headatlas sees it: its towers, heads, limits and the digests that name it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..kernels.stats import Call
from .sites import SiteMap, text_config


@dataclass(frozen=True, eq=False)
class Model:
    """A transformers model ready to be measured."""

    name: str
    network: PreTrainedModel
    tokenizer: Any = None
    backend: str = "interface"
    """`interface` (the model asks for its attention function) or `materialised` (its own softmax or SDPA is caught)."""
    revision: str | None = None
    verify: bool = True
    """Compare outputs inside and outside the capture: at load, or on the first batch where no sample can be made."""
    calls: list[Call] = field(default_factory=list, repr=False)
    """Every attention call of one forward over a small sample; filled by the check at load."""
    sites: SiteMap = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", SiteMap(self.network))

    @property
    def config(self) -> Any:
        """The configuration of the text tower, or of the whole where there is none."""
        return text_config(self.network.config)

    @property
    def max_length(self) -> int | None:
        """Longest sequence the positions allow, in tokens; None where the model states none."""
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            length = getattr(self.config, name, None)
            if isinstance(length, int) and length > 0:
                rows, first = self._position_table
                return length if rows is None else min(length, rows - first)
        return None

    @property
    def first_position(self) -> int:
        """Position of the first token as the model counts: 0, or more where the table's first rows are not used."""
        return self._position_table[1]

    @cached_property
    def _position_table(self) -> tuple[int | None, int]:
        """(rows of the table of learned positions, first one used): RoBERTa counts from its padding index + 1."""
        for module in self.network.modules():
            table = getattr(module, "position_embeddings", None)
            if isinstance(table, nn.Embedding):
                given = getattr(module, "position_ids", None)
                offset = int(given.flatten()[0]) if isinstance(given, Tensor) else 0
                return table.num_embeddings, offset if table.padding_idx is None else table.padding_idx + 1
        return None, 0

    @property
    def text_calls(self) -> dict[int, Call]:
        """Layer -> self-attention call of the text tower."""
        return {call.layer: call for call in self.calls if call.tower == "text" and not call.cross}

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return self.network.device

    @property
    def dtype(self) -> str:
        """Data type of the weights, as `float32`."""
        return str(self.network.dtype).removeprefix("torch.")

    @cached_property
    def digest(self) -> str:
        """Hash of every weight, 16 hex digits: the same weights under another name are the same model."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @cached_property
    def tokenizer_digest(self) -> str:
        """Hash of the tokenizer's whole definition and chat template; empty without a tokenizer."""
        if self.tokenizer is None:
            return ""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        text = _definition(backend) if backend is not None else repr(sorted(self.tokenizer.get_vocab().items()))
        text += str(getattr(self.tokenizer, "chat_template", None))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def card(self) -> dict[str, Any]:
        """What a run's header says of the model."""
        config = self.config
        heads = getattr(config, "num_attention_heads", None)
        width = getattr(config, "hidden_size", None)
        return {
            "name": self.name,
            "digest": self.digest,
            "revision": self.revision,
            "class": type(self.network).__name__,
            "layers": getattr(config, "num_hidden_layers", None),
            "heads": heads,
            "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
            "head_dim": getattr(config, "head_dim", None) or (width // heads if width and heads else None),
            "max_length": self.max_length,
            "towers": self.towers(),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }

    def towers(self) -> list[dict[str, Any]]:
        """Per tower: layers, heads, KV heads, and the window of each layer (None without one)."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            if call.number == 0:
                found.setdefault(call.tower, []).append(call)
        return [
            {
                "name": name,
                "layers": max(call.layer for call in calls) + 1,
                "heads": max(call.heads for call in calls),
                "kv_heads": max(call.kv_heads for call in calls),
                "windows": {str(call.layer): call.window for call in calls if call.window is not None},
                "causal": all(call.causal for call in calls),
            }
            for name, calls in found.items()
        ]

    def __repr__(self) -> str:
        card = self.card()
        size = f"{card['layers']} layers x {card['heads']} heads, {card['parameters'] / 1e6:.3g} M parameters"
        return f"Model({self.name!r}, {size}, {self.dtype} on {self.device}, {self.backend})"


def _definition(backend: Any) -> str:
    """A fast tokenizer as text, without the padding and truncation that its last call happened to set."""
    known = json.loads(backend.to_str())
    return json.dumps({key: value for key, value in known.items() if key not in ("padding", "truncation")})
