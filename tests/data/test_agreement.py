"""Rank agreement of two readings: known orders, intervals that cover, and refusals that say what there is."""

import numpy as np
import pytest
from headatlas.data.agreement import Values, agreement
from headatlas.data.errors import UserError


def reading(means, *, noise=0.0, examples=40, seed=0, prompts=("run", "")):
    random = np.random.default_rng(seed)
    values = np.asarray(means, float) + noise * random.standard_normal((examples, len(means)))
    places = [(index // 4, index % 4) for index in range(len(means))]
    return Values(values, np.arange(examples), places, "a:b", prompts)


def test_known_orders():
    rising = np.arange(12.0)
    same = agreement(reading(rising), reading(rising**3, prompts=("other", "")))
    assert (same.rho, same.low, same.high) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert (same.heads, same.top, same.chance) == (12, 5, pytest.approx(25 / 12))
    assert same.shared == ["L2H3", "L2H2", "L2H1", "L2H0", "L1H3"]
    against = agreement(reading(rising), reading(-rising))
    assert (against.rho, against.shared) == (pytest.approx(-1), [])
    assert agreement(reading([0, 1, 2, 3, 4.0]), reading([1, 0, 2, 3, 4.0])).rho == pytest.approx(0.9)


def test_the_interval_is_wide_for_noise_and_narrow_for_many_prompts():
    means = np.linspace(0, 1, 16)
    few = agreement(reading(means, noise=2, examples=10, seed=1), reading(means, noise=2, examples=10, seed=2))
    many = agreement(reading(means, noise=2, examples=900, seed=1), reading(means, noise=2, examples=900, seed=2))
    assert many.high - many.low < 0.25 < few.high - few.low
    assert many.low <= many.rho <= many.high


def test_the_same_prompts_are_drawn_together():
    values = reading(np.zeros(10), noise=1, examples=30, seed=3)
    together = agreement(values, values)
    assert (together.rho, together.low) == (pytest.approx(1), pytest.approx(1))


def test_few_clusters_have_no_interval_and_undefined_heads_are_left_out():
    found = agreement(reading(np.arange(8.0), examples=4), reading(np.arange(8.0), examples=4))
    assert found.rho == pytest.approx(1) and np.isnan(found.low) and found.clusters == (4, 4)
    holes = reading([0, 1, np.nan, 3, 4, 5.0])
    assert agreement(holes, reading(np.arange(6.0))).heads == 5
    with pytest.raises(UserError, match="have 2 heads in common; expected 3 or more"):
        agreement(reading([0, 1.0]), reading([0, 1.0]))
