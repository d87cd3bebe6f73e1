"""Sun et al., "Massive Activations in Large Language Models", section 2: how large, and since when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..table import Place, Setting, Table, largest

SIZE, FIRST = "largest activation of any layer", "first layer with one, counted from 1"
DATA, PAPER = "text:length=1024", "10 sequences of the context's length from RedPajama, without special tokens"


def first_layer(means: np.ndarray, places: Sequence[Place]) -> np.ndarray:
    """The first layer, from 1, with a massive activation in the mean prompt; undefined where none has."""
    number = 1 + np.array([layer for layer, _ in places])
    first = np.where(means >= 1, number, np.inf).min(1)
    return np.where(np.isinf(first), np.nan, first)


TABLE = Table(
    name="massive-activations",
    title="Massive activations: the largest, and the first layer that has one",
    source="Sun et al., Massive Activations in Large Language Models, section 2; sizes: its intervention's mean values",
    settings=(
        Setting(
            probe="largest_activation", part="size", data=DATA, paper_data=PAPER, bos="none",
            quantities={SIZE: largest},
        ),
        Setting(
            probe="massive_activations", data=DATA, paper_data=PAPER, bos="none", quantities={FIRST: first_layer},
        ),
    ),
    published={
        "llama-2-7b-hf": {SIZE: 2546.8, FIRST: 2},
        "llama-2-13b-hf": {SIZE: 1223.5},
    },
    unlike="the paper's size is the mean of one dimension at the delimiter (2533 of the 7B, 4743 of the 13B model), "
    "ours the largest of any token and dimension; the dimensions are not compared; its layer 2 is taken for the second",
    examples=10,
    models=("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf"),
    on_organism="headatlas reproduce massive-activations organism:pico-lm --data text:length=256",
)  # fmt: skip
