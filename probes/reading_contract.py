"""What every reading of weights must hold to, whoever wrote it: `check_reading(one)` runs all of it.

The test suite takes each check over each reading it finds; a user can run `check_reading` over one of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

import torch
from torch import Tensor

from .contract import run_example
from .reading import WeightReading
from .weights import NAMES, HeadWeights, per_head
from .worked_weights import random_weights

LAYERS, HEADS = 3, 4
PER_HEAD = ("w_q", "w_k", "w_v", "w_o")


def check_shape(one: WeightReading) -> None:
    """[layer, head, part], and a value somewhere."""
    values = one.measure(random_weights())
    expected = (LAYERS, HEADS, max(1, len(one.parts)))
    assert tuple(values.shape) == expected, f"expected {expected}, got {tuple(values.shape)}"
    assert values.is_floating_point()
    assert not values.isnan().all(), "undefined everywhere"


def check_bounds(one: WeightReading) -> None:
    """Values stay inside the declared bounds, for small, usual and large weights, tall and square."""
    low, high = one.bounds
    for scale, d_head in ((1e-3, 6), (1.0, 6), (1e3, 6), (1.0, 24)):
        values = one.measure(random_weights(scale=scale, d_head=d_head))
        values = values[~values.isnan()]
        assert low is None or (values >= low - 1e-4).all(), f"{values.min()} is below {low}"
        assert high is None or (values <= high + 1e-4).all(), f"{values.max()} is above {high}"
        assert not values.isinf().any()


def check_determinism(one: WeightReading) -> None:
    """The same weights give the same bits, and the generator of the process is left alone."""
    before = torch.get_rng_state()
    first, second = one.measure(random_weights()), one.measure(random_weights())
    assert torch.equal(first.nan_to_num(-7), second.nan_to_num(-7))
    assert torch.equal(before, torch.get_rng_state()), "draws from the global generator; expected a seeded one"


def check_head_permutation(one: WeightReading) -> None:
    """The heads of a layer have no order: permuting them permutes the reading, in that layer alone."""
    weights, order = random_weights(kv_heads=HEADS), torch.tensor([2, 0, 3, 1])
    moved = {name: getattr(weights, name).clone() for name in PER_HEAD}
    for name in PER_HEAD:
        moved[name][1] = moved[name][1, order]
    expected = one.measure(weights).clone()
    expected[1] = expected[1, order]
    _same(one.measure(replace(weights, **moved)), expected)


def check_grouped_queries(one: WeightReading) -> None:
    """A shared KV head reads like the same KV head repeated."""
    weights = random_weights()
    repeated = {name: per_head(getattr(weights, name), HEADS) for name in ("w_k", "w_v")}
    _same(one.measure(replace(weights, **repeated)), one.measure(weights))


def check_rotation(one: WeightReading) -> None:
    """The basis of the residual stream means nothing: an orthogonal change of it changes nothing."""
    weights = random_weights()
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1))).Q
    turned = replace(
        weights, w_q=turn @ weights.w_q, w_k=turn @ weights.w_k, w_v=turn @ weights.w_v, w_o=weights.w_o @ turn.T,
        w_e=weights.w_e @ turn.T, w_u=turn @ weights.w_u,
    )  # fmt: skip
    _same(one.measure(turned), one.measure(weights))


def check_scale(one: WeightReading) -> None:
    """A reading that says it is free of scale does not change with a factor on a head's queries, keys or writing."""
    if not one.scale_free:
        return
    weights = random_weights()
    factors = torch.tensor([0.1, 1.0, 3.0, 20.0])[:, None, None]
    scaled = replace(weights, w_q=weights.w_q * factors, w_k=weights.w_k * 5, w_o=weights.w_o * factors)
    _same(one.measure(scaled), one.measure(weights))


def check_undefined(one: WeightReading) -> None:
    """A head whose weights are all 0 has a size of 0 and no direction: its reading breaks nothing, and is never inf."""
    weights = random_weights(kv_heads=HEADS)
    dead = {name: getattr(weights, name).clone() for name in PER_HEAD}
    for name in PER_HEAD:
        dead[name][1, 2] = 0
    values = one.measure(replace(weights, **dead))
    assert not values.isinf().any()
    if one.scale_free:
        assert values[1, 2].isnan().all(), f"expected NaN for a head of zeros, got {values[1, 2].tolist()}"
    others = one.measure(weights)
    _same(values[0], others[0])


def check_needs(one: WeightReading) -> None:
    """The reading uses every weight it declares, and no other."""
    weights = random_weights()
    touched: set[str] = set()
    one.measure(_watched(weights, touched))
    used, expected = touched & set(NAMES), set(one.needs)
    changed = {name for name in NAMES if not _unchanged(one, weights, name)}
    assert changed <= expected, f"reads {', '.join(sorted(changed - expected))}, which it does not declare"
    assert expected <= used, f"declares {', '.join(sorted(expected - used))} and never reads it"


def check_card(one: WeightReading) -> None:
    """The card is complete, JSON, says that it is of the weights, and its example runs."""
    card = json.loads(json.dumps(one.card()))
    for name in ("name", "family", "title", "summary", "formula", "unit", "higher", "caveat", "source"):
        assert card[name], f"the card lacks {name}"
    assert card["per"] == card["default_data"] == "weights"
    assert one.name.isidentifier() and one.name == one.name.lower()
    assert len(set(one.parts)) == len(one.parts) and all(one.parts)
    run_example(one.name, one.explanation, one.function)


CHECKS: dict[str, Callable[[WeightReading], None]] = {
    name.removeprefix("check_"): cast("Callable[[WeightReading], None]", check)
    for name, check in list(globals().items())
    if name.startswith("check_") and callable(check)
}


def check_reading(one: WeightReading) -> None:
    """Run every check; the first that fails raises AssertionError with the reading's and the check's name."""
    for name, check in CHECKS.items():
        try:
            check(one)
        except AssertionError as error:
            raise AssertionError(f"reading {one.name!r} fails the contract at {name!r}: {error}") from None


def _unchanged(one: WeightReading, weights: HeadWeights, name: str) -> bool:
    other = replace(weights, **{name: getattr(random_weights(seed=9), name)})
    return torch.equal(one.measure(other).nan_to_num(-7), one.measure(weights).nan_to_num(-7))


def _watched(weights: HeadWeights, touched: set[str]) -> HeadWeights:
    """The same weights, noting which of them are read."""

    class Watched(HeadWeights):
        def __getattribute__(self, name: str) -> Any:
            touched.add(name)
            return super().__getattribute__(name)

    return Watched(**{item.name: getattr(weights, item.name) for item in fields(weights)})


def _same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left.double(), right.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
