"""What every probe must hold to, whoever wrote it: `check_probe(one)` runs all of it.

Adding a probe needs no test of these: the test suite takes each check over each probe it finds, and a user can run
`check_probe` over a probe of their own.
"""

from __future__ import annotations

import doctest
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from .probe import Probe
from .trial import padded_call, picked, read, stats_for, trial_inputs


def check_shape(one: Probe) -> None:
    """[batch, head, part], with as many counts as values, and no count above the length."""
    inputs = trial_inputs(one)
    reading = read(one, inputs)
    expected = (3, 1 if one.of_layers else 4, max(1, len(one.parts)))
    assert tuple(reading.values.shape) == expected, f"expected {expected}, got {tuple(reading.values.shape)}"
    assert reading.values.is_floating_point()
    assert (reading.n_queries <= inputs.shape[2]).all()
    assert not reading.values.isnan().all(), "undefined everywhere, on inputs that have every label"


def check_bounds(one: Probe) -> None:
    """Values stay inside the declared bounds, also for very sharp and very flat attention."""
    low, high = one.bounds
    for sharpness in (0.0, 1.0, 30.0):
        values = read(one, replace(trial_inputs(one), scale=sharpness)).values
        values = values[~values.isnan()]
        assert low is None or (values >= low - 1e-4).all(), f"{values.min()} is below {low}"
        assert high is None or (values <= high + 1e-4).all(), f"{values.max()} is above {high}"
        assert not values.isinf().any()


def check_batch_equals_single(one: Probe) -> None:
    """An example reads the same alone and among others."""
    inputs = trial_inputs(one)
    together = read(one, inputs)
    for index in range(3):
        alone = read(one, picked(inputs, index))
        _same(together.values[index], alone.values[0])
        _same(together.n_queries[index], alone.n_queries[0])


def check_padding(one: Probe) -> None:
    """Padding on the right or left changes nothing."""
    plain = read(one, trial_inputs(one))
    for left in (False, True):
        padded = read(one, padded_call(trial_inputs(one), 13, left=left))
        _same(padded.values, plain.values)
        _same(padded.n_queries, plain.n_queries)


def check_head_permutation(one: Probe) -> None:
    """Heads are read one by one: permuting them permutes the reading."""
    if one.of_layers:
        return
    inputs = trial_inputs(one, kv_heads=4)
    order = torch.tensor([2, 0, 3, 1])
    moved = {name: getattr(inputs, name)[:, order] for name in ("query", "key", "value")}
    _same(read(one, replace(inputs, **moved)).values, read(one, inputs).values[:, order])


def check_grouped_queries(one: Probe) -> None:
    """Shared keys read like the same keys repeated."""
    inputs = trial_inputs(one)
    repeated = {name: getattr(inputs, name).repeat_interleave(2, dim=1) for name in ("key", "value")}
    _same(read(one, replace(inputs, **repeated)).values, read(one, inputs).values)


def check_dtypes(one: Probe) -> None:
    """Half-precision queries and keys read as their values in float32 do."""
    inputs = trial_inputs(one)
    for dtype in (torch.bfloat16, torch.float16):
        low = {name: getattr(inputs, name).to(dtype) for name in ("query", "key", "value")}
        rounded = {name: tensor.float() for name, tensor in low.items()}
        _same(read(one, replace(inputs, **low)).values, read(one, replace(inputs, **rounded)).values)


def check_absent_group(one: Probe) -> None:
    """Without the tokens it is about, a probe is undefined: NaN, of no queries."""
    if not one.groups:
        return
    inputs = trial_inputs(one)
    nothing = torch.zeros(inputs.shape[0], inputs.shape[2], dtype=torch.int8)
    reading = read(one, replace(inputs, query_groups=nothing, key_groups=nothing))
    assert reading.values.isnan().all(), "expected NaN where the group is absent"
    assert one.per != "query" or (reading.n_queries == 0).all()


def check_one_token(one: Probe) -> None:
    """A prompt of one token is measured or undefined, but breaks nothing."""
    values = read(one, trial_inputs(one, length=1)).values
    assert not values.isinf().any()


def check_determinism(one: Probe) -> None:
    """The same inputs give the same bits."""
    first, second = read(one, trial_inputs(one)), read(one, trial_inputs(one))
    assert torch.equal(first.values.nan_to_num(-7), second.values.nan_to_num(-7))


def check_needs(one: Probe) -> None:
    """The probe reads every statistic it declares, and no other."""
    stats = stats_for(one, trial_inputs(one))
    touched: set[str] = set()
    values = _Touched(stats.values_by_name, touched)
    one.measure(replace(stats, values_by_name=values))
    unread = one.needs - touched
    assert not unread, f"declares {', '.join(sorted(unread))} and never reads it"


def check_card(one: Probe) -> None:
    """The card is complete, JSON, and its example runs."""
    card = json.loads(json.dumps(one.card()))
    for name in ("name", "family", "title", "summary", "formula", "unit", "higher", "caveat", "source"):
        assert card[name], f"the card lacks {name}"
    assert one.name.isidentifier() and one.name == one.name.lower()
    assert len(set(one.parts)) == len(one.parts) and all(one.parts)
    assert not one.binary or one.bounds == (0, 1)
    run_example(one.name, one.explanation, one.function)


def run_example(name: str, explanation: str, function: Callable[..., object]) -> None:
    """The worked example of a docstring is there, and gives what it says."""
    names = vars(sys.modules[function.__module__])
    example = doctest.DocTestParser().get_doctest(explanation, dict(names), name, None, None)
    assert example.examples, "the docstring has no worked example (>>>)"
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.failed == 0, f"{result.failed} lines of the worked example fail"


CHECKS: dict[str, Callable[[Probe], None]] = {
    name.removeprefix("check_"): cast("Callable[[Probe], None]", check)
    for name, check in list(globals().items())
    if name.startswith("check_") and callable(check)
}


def check_probe(one: Probe) -> None:
    """Run every check; the first that fails raises AssertionError with the probe's and the check's name."""
    for name, check in CHECKS.items():
        try:
            check(one)
        except AssertionError as error:
            raise AssertionError(f"probe {one.name!r} fails the contract at {name!r}: {error}") from None


class _Touched(dict[str, Tensor]):
    """A dict that notes which keys were read."""

    def __init__(self, values: Mapping[str, Tensor], touched: set[str]) -> None:
        super().__init__(values)
        self.touched = touched

    def __getitem__(self, name: str) -> Tensor:
        self.touched.add(name)
        return super().__getitem__(name)


def _same(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left.double(), right.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
