"""Wu et al., "Retrieval Head Mechanistically Explains Long-Context Factuality", figure 3 and its scores."""

from __future__ import annotations

from ..table import Setting, Table, number_of, percent_at_zero, percent_of

HEADS, STRONG, NEVER = "heads of 0.1 and more, %", "heads of 0.5 and more", "heads at 0, %"
ALWAYS = "heads above 0 in every prompt"

TABLE = Table(
    name="retrieval-heads",
    title="How many heads retrieve, and how much the strongest: mean retrieval score where the model answers",
    source="Wu et al., Retrieval Head Mechanistically Explains Long-Context Factuality, figure 3, by its scores",
    settings=(
        Setting(
            probe="retrieval", part="as released", data="needle:lengths=1000+4000+8000", answers="right", heads=True,
            paper_data="3 needles x 20 lengths of 1,000 to 50,000 tokens x 10 depths",
            quantities={HEADS: percent_of(0.1), STRONG: number_of(0.5), NEVER: percent_at_zero},
            of_shares={ALWAYS: number_of(1.0)},
        ),
    ),
    published={
        "llama-2-7b-80k": {
            HEADS: 3.2, STRONG: 6, NEVER: 70.2, ALWAYS: 12,
            "L16H19": 0.94, "L11H15": 0.92, "L8H26": 0.80, "L6H9": 0.62, "L7H12": 0.61, "L17H22": 0.56, "L11H2": 0.46,
            "L6H16": 0.44, "L19H15": 0.42, "L21H30": 0.40,
        },
        "yi-6b-200k": {HEADS: 5.2, STRONG: 7, NEVER: 49.4},
        "mistral-7b-v0.2-hf": {
            HEADS: 4.2, STRONG: 5, NEVER: 65.0, "L18H0": 0.94, "L12H7": 0.93, "L12H6": 0.77, "L18H2": 0.74,
        },
        "mixtral-8x7b-v0.1": {HEADS: 6.2, STRONG: 7, NEVER: 57.6},
        "qwen1.5-14b": {HEADS: 3.8, STRONG: 10, NEVER: 53.4},
        "qwen1.5-14b-chat": {HEADS: 4.3, STRONG: 1, NEVER: 71.1},
        "llama-2-13b-64k": {HEADS: 2.1, STRONG: 6, NEVER: 73.2},
    },
    unlike="each prompt has a distractor; the span is the words the answer repeats; the share of "
    "heads at 0 and the heads above 0 in every prompt fall with the number of prompts (about 600 in the paper)",
    models=(
        "yaofu/llama-2-7b-80k", "yaofu/llama-2-13b-64k", "01-ai/Yi-6B-200K", "alpindale/Mistral-7B-v0.2-hf",
        "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen1.5-14B", "Qwen/Qwen1.5-14B-Chat",
    ),
    on_organism="headatlas reproduce retrieval-heads organism:pico-lm --data secrets:lengths=128+256 --examples 60",
)  # fmt: skip
