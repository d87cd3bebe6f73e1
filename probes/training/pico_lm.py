"""The recipe of pico-lm: induction first, in two layers on short repeats; then four more layers and the whole mixture.

The order is what matters: repeats inside a mixture from the first step do not give induction in the same time. Rows of
512 come early in the mixture, and needles lie early in their rows, because long distances are learnt last.
"""

from __future__ import annotations

from .recipe import Feed, Gate, Recipe, Shape, Stage

REPEATS = {"repeats": 1.0}
NAMES = {"one_name": 1.0}
ALONE = {"one_task": 3.0, "one_colour_or_letter": 1.0}
SHORT = {"tasks": 1.0, "text": 1.0, "reversed_pairs": 0.5, "repeats": 1.5, "ambiguous_repeats": 0.5, "needle": 1.2}
MATCHING = {"reversed_pairs": 1.0, "ambiguous_repeats": 1.0, "repeats": 1.0}
LONG = {"repeats": 1.0, "ambiguous_repeats": 0.4, "needle": 2.0, "text": 0.2}


def _induction(length: int, *, tokens: int, accuracy: float, rate: float = 3e-3, induction: float = 0.0) -> Stage:
    return Stage(
        name=f"induction-{length}",
        layers=2,
        steps=2500,
        feeds=(Feed(length + 1, 1.0, REPEATS),),
        rate=rate,
        tokens=tokens,
        gate=Gate("repeats", length, accuracy, induction=induction),
    )


RECIPE = Recipe(
    name="pico-lm",
    shape=Shape(hidden=128, heads=8, key_value_heads=4, feed_forward=256),
    stages=(
        _induction(32, tokens=1024, accuracy=0.9, induction=0.5),
        _induction(64, tokens=2048, accuracy=0.9),
        _induction(128, tokens=2048, accuracy=0.9),
        _induction(256, tokens=2048, accuracy=0.9),
        Stage(
            name="matching", layers=4, steps=500, rate=2e-3, tokens=3072,
            feeds=(Feed(33, 0.3, MATCHING), Feed(65, 0.4, MATCHING), Feed(129, 0.3, MATCHING)),
            gate=Gate("reversed_pairs", 65, 0.9, every=50, must=False),
        ),
        Stage(
            name="mixture", layers=6, steps=2600, rate=2e-3, tokens=3072, decay=0.4,
            feeds=(
                Feed(24, 0.2, NAMES), Feed(48, 0.2, ALONE), Feed(64, 0.1, SHORT), Feed(128, 0.2, SHORT),
                Feed(257, 0.15, LONG), Feed(513, 0.15, LONG),
            ),
        ),
    ),
)  # fmt: skip
