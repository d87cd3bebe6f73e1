"""The effect of an edit beside random sets: numbers by hand, and where there is none."""

import numpy as np
import pytest
from headatlas.data.causal import effect_of


def test_sets_that_hardly_vary_make_no_large_effect():
    draw, prompts = np.random.default_rng(0), np.arange(30)
    noise = draw.normal(0, 0.1, (30, 1))
    sets = 1 + noise + draw.normal(0, 1e-7, (30, 10))
    values = 0.8 + draw.normal(0, 0.1, 30)
    paired = values - sets.mean(1)
    error = paired.std(ddof=1) / np.sqrt(30)
    found, why = effect_of(values, sets, prompts)
    assert why == "" and found == pytest.approx(paired.mean() / error, rel=1e-3)
    assert abs(paired.mean() / sets.mean(0).std(ddof=1)) > 1e6, "by the sets' spread alone"


def test_sets_that_vary_count_beside_the_prompts():
    sets = np.tile(np.arange(5.0), (10, 1))  # every prompt says the same: no error over prompts
    assert effect_of(np.full(10, 6.0), sets, np.arange(10)) == (pytest.approx(4 / np.sqrt(2.5)), "")


def test_prompts_of_one_cluster_count_once():
    values, sets = np.tile([0.0, 1.0, 1.0, 0.0, 1.0, 0.0], 3), np.zeros((18, 5))
    together = effect_of(values, sets, np.tile(np.arange(6), 3))[0]
    assert together == pytest.approx(effect_of(values[:6], sets[:6], np.arange(6))[0])
    assert together < effect_of(values, sets, np.arange(18))[0]


@pytest.mark.parametrize(
    ("prompts", "sets", "why"),
    [
        (8, 0, "fewer than 5 random sets"),
        (8, 4, "fewer than 5 random sets"),
        (4, 5, "fewer than 5 independent prompts"),
        (8, 5, "neither random sets nor prompts differ"),
    ],
)
def test_there_is_no_effect_and_why(prompts, sets, why):
    found, said = effect_of(np.ones(prompts), np.zeros((prompts, sets)), np.arange(prompts))
    assert np.isnan(found) and said == why
