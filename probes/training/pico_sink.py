"""The recipe of pico-sink: Bigram-Backcopy and plain English from the first step, so that heads idle on BOS.

Source: Guo et al., "Active-Dormant Attention Heads": a head that is needed after triggers only parks on the first token
elsewhere, and that token's value shrinks. Two sizes matter: the unembedding is untied, so bigrams need no attention and
the MLPs are too narrow to undo what a head that never rests would write.
"""

from __future__ import annotations

from .recipe import Feed, Recipe, Shape, Stage

MIXTURE = {"bigram_backcopy": 3.0, "english": 1.0}

RECIPE = Recipe(
    name="pico-sink",
    shape=Shape(hidden=64, heads=2, key_value_heads=2, feed_forward=16, tied=False),
    stages=(
        Stage(
            name="mixture",
            layers=2,
            steps=4000,
            feeds=(Feed(64, 1.0, MIXTURE),),
            rate=3e-3,
            tokens=2048,
            decay=0.3,
        ),
    ),
)
