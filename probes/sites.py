"""Where a model's attention calls happen: towers, layers, and how one call is told from the next.

Attention modules whose names differ in numbers alone form one tower (`text`, `vision`, `encoder`, `decoder`, `cross`).
A module may be called many times in one forward: once per layer where layers share weights (ALBERT), or once per image
inside one module forward (Qwen's vision tower). The first are layers of their own, the second are pieces of one layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn

CROSS = re.compile(r"cross|encoder_attn|EncDec", re.IGNORECASE)
VISION = re.compile(r"vision|visual|image|vit", re.IGNORECASE)
AUDIO = re.compile(r"audio|speech", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """One attention module: its name, tower and layer."""

    module: str
    tower: str
    layer: int
    shared: bool = False
    """One module serves several layers: the layer then counts the module's forwards."""
    block: str = ""
    """The module of the whole layer: attention, feed-forward and residual additions."""


@dataclass
class SiteMap:
    """Names every attention module of one model as it is met."""

    model: nn.Module
    sites: dict[int, Site] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {id(module): name for name, module in self.model.named_modules()}

    def site(self, module: nn.Module) -> Site:
        """The site of an attention module, whose whole tower is named when its first module is met."""
        if id(module) not in self.sites:
            self._add_tower(module)
        return self.sites[id(module)]

    def _add_tower(self, module: nn.Module) -> None:
        pattern = _pattern(self.names[id(module)])
        tower = self._tower_name(pattern)
        self.patterns[pattern] = tower
        members = [
            (name, other)
            for name, other in self.model.named_modules()
            if _pattern(name) == pattern and type(other) is type(module)
        ]
        names = [name for name, _ in members]
        layers, blocks = _layers(names), _blocks(names)
        shared = len(members) == 1 and _layer_count(self.model.config) > 1 and tower in ("text", "encoder")
        for (name, other), layer, block in zip(members, layers, blocks, strict=True):
            self.sites[id(other)] = Site(name, tower, layer, shared, block)

    def _tower_name(self, pattern: str) -> str:
        name = _role(pattern, self.model.config, getattr(self.model, "main_input_name", "input_ids"))
        taken = set(self.patterns.values())
        if name not in taken:
            return name
        return next(f"{name}{number}" for number in range(2, 100) if f"{name}{number}" not in taken)

    def towers(self) -> list[str]:
        """Names of the towers met so far, in order."""
        return list(self.patterns.values())


def text_config(config: Any) -> Any:
    """The configuration of the text tower, or the whole where there is none."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _role(pattern: str, config: Any, main_input: str) -> str:
    """text, vision, audio, encoder, decoder or cross."""
    if CROSS.search(pattern):
        return "cross"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder" if "encoder" in pattern.split(".") else "decoder"
    if AUDIO.search(pattern) or main_input in ("input_values", "input_features"):
        return "audio"
    return "vision" if VISION.search(pattern) or main_input == "pixel_values" else "text"


def _layer_count(config: Any) -> int:
    return int(getattr(text_config(config), "num_hidden_layers", 1) or 1)


def _layers(names: list[str]) -> list[int]:
    """The number in which the names differ, or their order where several numbers differ."""
    numbers = [[int(part) for part in name.split(".") if part.isdigit()] for name in names]
    if len(names) == 1:
        return numbers[0][:1] or [0]
    varying = _varying(numbers)
    if len(varying) == 1:
        return [values[varying[0]] for values in numbers]
    return list(range(len(names)))


def _blocks(names: list[str]) -> list[str]:
    """Each name up to the last number in which the names differ; of a single name, up to its first number.

    >>> _blocks(["block.0.layer.0.attention", "block.1.layer.0.attention"])
    ['block.0', 'block.1']
    """
    parts = [name.split(".") for name in names]
    places = [index for index, part in enumerate(parts[0]) if part.isdigit()]
    varying = [places[number] for number in _varying([[int(one[place]) for place in places] for one in parts])]
    end = varying[-1] if varying else places[0] if places else -1
    return [".".join(one[: end + 1]) for one in parts]


def _varying(numbers: list[list[int]]) -> list[int]:
    """Which of the numbers of every name differ between names."""
    return [position for position, values in enumerate(zip(*numbers)) if len(set(values)) > 1]
