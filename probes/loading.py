"""From a hub id, a folder, an organism or objects at hand to a `Model` whose heads can be measured.

Weights come from safetensors, remote code runs only when asked for, and a model whose outputs change inside the capture
is refused by name with the reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..data.errors import UserError, first_line
from ..data.organisms.shelf import organism_path
from .check import check_capture
from .early import not_found
from .models import Model

NEEDED = re.compile(r"\.\d+\.|embed")
"""Weights that attention depends on: those of layers and embeddings; a head or pooler comes after all attention."""


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
    comparison of outputs inside and outside the capture.
    """
    if isinstance(source, PreTrainedModel):
        source = (source, None)
    if isinstance(source, tuple):
        network, tokenizer = source
        model = _wrap(network.config.name_or_path or type(network).__name__, network, tokenizer, None)
    else:
        model = _from_source(str(source), revision, dtype, device, trust_remote_code)
    if getattr(model.network.config, "attention_type", None) == "block_sparse":
        raise UserError(f"{model.name} uses block-sparse attention, which is no softmax over keys; use original_full")
    if check:
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
        raise not_found(name, error) from None
    network = _network(name, path, config, dtype, options).eval()
    _put(name, network, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return _wrap(name, network, _tokenizer(path, options), revision)


def _network(name: str, path: str, config: Any, dtype: Any, options: Mapping[str, Any]) -> PreTrainedModel:
    """The network with its weights; refused where weights that attention depends on would be drawn at random."""
    try:
        network, report = _network_class(config).from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"model {name!r}: its weights can't be read as dtype {dtype}: {first_line(error)}") from None
    missing = sorted(key for key in report["missing_keys"] if NEEDED.search(key))
    if missing:
        raise UserError(
            f"model {name!r}: {len(missing)} weights of its config are missing in its file, first {missing[0]}; "
            "expected all of them, since the rest would be random. Check config.json"
        )
    return network


def _put(name: str, network: torch.nn.Module, device: str) -> None:
    """Move the network, in place."""
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"model {name!r} can't be put on device {device!r}: {first_line(error)}") from None


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
