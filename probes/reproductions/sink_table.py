"""Gu et al., "When Attention Sink Emerges in Language Models", table 1: Sink_1, in per cent."""

from __future__ import annotations

from ..table import Setting, Table, percent

NATURAL, RANDOM, REPEATED = "Sink_1 natural, %", "Sink_1 random, %", "Sink_1 repeated, %"

TABLE = Table(
    name="sink-table",
    title="First-token sinks of natural, random and repeated tokens: Sink_1 at eps 0.3 over 64 tokens",
    source="Gu et al., When Attention Sink Emerges in Language Models, table 1",
    settings=(
        Setting(
            probe="sink_rate", data="text:length=64", paper_data="100 natural texts, not public",
            quantities={NATURAL: percent},
        ),
        Setting(
            probe="sink_rate", data="random:length=64", paper_data="100 sequences of uniform random ids", bos="none",
            quantities={RANDOM: percent},
        ),
        Setting(
            probe="sink_rate", data="one_token:length=64", paper_data="100 sequences of one random id", bos="none",
            quantities={REPEATED: percent},
        ),
    ),
    published={
        "gpt2-xl": {NATURAL: 77.00, RANDOM: 70.29, REPEATED: 62.28},
        "mistral-7b-v0.1": {NATURAL: 97.49, RANDOM: 75.21, REPEATED: 0.0},
        "llama-2-7b-hf": {NATURAL: 92.47, RANDOM: 90.13, REPEATED: 0.0},
        "llama-2-7b-chat-hf": {NATURAL: 92.88},
        "llama-2-13b-hf": {NATURAL: 91.69},
        "llama-2-13b-chat-hf": {NATURAL: 90.94},
        "meta-llama-3-8b": {NATURAL: 99.02, RANDOM: 91.23, REPEATED: 0.0},
        "meta-llama-3-8b-instruct": {NATURAL: 98.85},
    },
    unlike="nothing but the texts",
    models=(
        "gpt2-xl", "mistralai/Mistral-7B-v0.1", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf",
        "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-13b-chat-hf", "meta-llama/Meta-Llama-3-8B",
        "meta-llama/Meta-Llama-3-8B-Instruct",
    ),
    on_organism="headatlas reproduce sink-table organism:pico-lm --examples 32",
)  # fmt: skip
