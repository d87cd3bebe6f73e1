"""Models: from a hub id, a folder, an organism or objects at hand to something whose heads can be measured.

Loading checks the promise the package lives on: on a few tokens, the model gives the same logits inside our capture
as outside it, every attention module of a tower is seen, and each row of weights (the learned sink's share included)
sums to 1. A model that fails is refused by name with the reason.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from ..data.errors import UserError
from ..data.organisms.shelf import organism_path, organisms
from ..kernels.stats import Call
from .sites import SiteMap

NEEDED = re.compile(r"\.\d+\.|embed")
"""Weights that attention depends on: those of layers and embeddings; a head or pooler comes after all attention."""


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
        config = self.network.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def max_length(self) -> int | None:
        """Longest sequence the positions allow, in tokens; None where the model states none."""
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            length = getattr(self.config, name, None)
            if isinstance(length, int) and length > 0:
                return length - (2 if self.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0)
        return None

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


def load(
    source: str | Path | tuple[PreTrainedModel, Any] | PreTrainedModel,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    check: bool = True,
) -> Model:
    """A model from a hub id, a local folder, `organism:NAME`, a transformers model, or (model, tokenizer).

    Weights are read from safetensors; remote code runs only with `trust_remote_code=True`. `check=False` skips the
    comparison of logits described above.
    """
    if isinstance(source, PreTrainedModel):
        source = (source, None)
    if isinstance(source, tuple):
        network, tokenizer = source
        model = _wrap(network.config.name_or_path or type(network).__name__, network, tokenizer, None)
    else:
        model = _from_source(str(source), revision, dtype, device, trust_remote_code)
    if check:
        from .check import check_capture

        check_capture(model)
    return replace(model, verify=check)


def _wrap(name: str, network: PreTrainedModel, tokenizer: Any, revision: str | None) -> Model:
    homes = {type(module).__module__ for module in network.modules()}
    inside = any(hasattr(sys.modules[home], "ALL_ATTENTION_FUNCTIONS") for home in homes)
    return Model(name, network, tokenizer, backend="interface" if inside else "materialised", revision=revision)


def _from_source(name: str, revision: str | None, dtype: Any, device: str | None, trust: bool) -> Model:
    from transformers import AutoConfig

    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust}
    try:
        path = str(organism_path(name)) if name.startswith("organism:") else name
        config = AutoConfig.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise UserError(_not_found(name, error)) from None
    network = _network(name, path, config, dtype, options).eval()
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        network = network.to(where)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"model {name!r} can't be put on device {where!r}: {_first_line(error)}") from None
    return _wrap(name, network, _tokenizer(path, options), revision)


def _network(name: str, path: str, config: Any, dtype: Any, options: Mapping[str, Any]) -> PreTrainedModel:
    """The network with its weights; refused where weights that attention depends on would be drawn at random."""
    try:
        network, report = _network_class(config).from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"model {name!r}: its weights can't be read as dtype {dtype}: {_first_line(error)}") from None
    missing = sorted(key for key in report["missing_keys"] if NEEDED.search(key))
    if missing:
        raise UserError(
            f"model {name!r}: {len(missing)} weights of its config are missing in its file, first {missing[0]}; "
            "expected all of them, since the rest would be random. Check config.json"
        )
    return network


def _network_class(config: Any) -> Any:
    """The auto class of the head the checkpoint was saved with: language model, masked, vision-language, or bare."""
    import transformers

    architecture = (getattr(config, "architectures", None) or [""])[0]
    if hasattr(transformers, architecture):
        return getattr(transformers, architecture)
    if architecture.endswith("ForCausalLM"):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _tokenizer(path: str, options: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError):
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _not_found(name: str, error: Exception) -> str:
    return (
        f"model {name!r}: expected a hub id, a folder with config.json, or one of "
        f"{', '.join(f'organism:{known}' for known in organisms())}; {_first_line(error)}"
    )


def all_models() -> list[dict[str, Any]]:
    """The models that come with the package: name, shape, and the first lines of their certificates."""
    from ..data.organisms.shelf import certificate

    return [{"name": f"organism:{name}", "certificate": certificate(name)} for name in organisms()]


def logits_of(output: Any) -> Tensor:
    """The tensor a model's output is judged by: logits, or the last hidden state, or the first tensor."""
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    return next(value for value in output.values() if isinstance(value, Tensor))
