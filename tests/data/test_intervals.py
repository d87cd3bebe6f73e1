import math

import numpy as np
import pytest
from headatlas.data.intervals import (
    bootstrap_mean,
    cluster_sums,
    expanded_tail,
    newcombe,
    spearman,
    split_half_reliability,
    wilson,
)


def test_cluster_sums_skip_nan():
    values = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, np.nan]])
    sums, counts = cluster_sums(values, ["b", "a", "b"])
    assert sums.tolist() == [[2.0, 5.0], [5.0, 0.0]]
    assert counts.tolist() == [[1.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize("clusters", [8, 40])
def test_bootstrap_covers_the_true_mean_of_clustered_data(clusters):
    """Many independent data sets stand side by side as heads; the interval must hold 0 in 95 % of them."""
    generator = np.random.default_rng(1)
    between = generator.normal(size=(clusters, 1, 4000))
    values = (between + 0.5 * generator.normal(size=(clusters, 5, 4000))).reshape(-1, 4000)
    low, high = bootstrap_mean(values, np.repeat(np.arange(clusters), 5), draws=2000, seed=3)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.93 <= covered <= 0.97


def test_ignoring_clusters_would_not_cover():
    generator = np.random.default_rng(1)
    values = np.repeat(generator.normal(size=(40, 2000)), 5, axis=0)
    low, high = bootstrap_mean(values, np.arange(200), seed=3)
    assert ((low <= 0) & (high >= 0)).mean() < 0.7


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = bootstrap_mean(values, np.arange(400), seed=7)
    again = bootstrap_mean(values, np.arange(400), seed=7)
    assert (low, high) == again
    half = 1.966 * values.std() / math.sqrt(399)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.01)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.01)


def test_below_five_clusters_there_is_no_interval():
    values = np.arange(20.0).reshape(20, 1)
    assert np.isnan(bootstrap_mean(values, np.arange(20) % 4)).all()
    assert np.isfinite(bootstrap_mean(values, np.arange(20) % 5)).all()


def test_clusters_without_a_value_do_not_count():
    values = np.ones((6, 2))
    values[:2, 1] = np.nan
    low, high = bootstrap_mean(values, np.arange(6))
    assert low[0] == high[0] == 1.0
    assert np.isnan([low[1], high[1]]).all()


def test_values_and_clusters_must_match():
    with pytest.raises(ValueError, match=r"values \[example, head\] and a cluster per example; came \(3, 1\) and 2"):
        bootstrap_mean(np.ones((3, 1)), [0, 1])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (81, 263, 0.25529, 0.36621)],
)
def test_wilson_known_values(successes, n, low, high):
    """81 of 263 is Newcombe's worked example (1998): 0.2553 to 0.3662."""
    assert np.allclose(wilson(successes, n), (low, high), atol=2e-5)


def test_wilson_needs_five_and_a_possible_count():
    assert np.isnan(wilson(2, 4)).all()
    with pytest.raises(ValueError, match="successes <= n"):
        wilson(6, 5)


def fourfold(both, first, second, neither):
    """Two 0/1 values per prompt, [prompt, 1] each, of which so many are 1 in both, in one of them, in neither."""
    counts = [both, first, second, neither]
    return np.repeat([1.0, 1, 0, 0], counts)[:, None], np.repeat([1.0, 0, 1, 0], counts)[:, None]


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((1, 1, 7, 12), -0.507, -0.026), ((20, 12, 2, 16), 0.0562, 0.3292), ((10, 0, 0, 0), -0.27753, 0.27753)],
)
def test_newcombe_known_values(table, low, high):
    """The first is the airway example of Fagerland et al. (2014), the second Newcombe's own (1998, method 10)."""
    one, other = fourfold(*table)
    found = newcombe(one, other, np.arange(len(one)))
    assert [found[0][0], found[1][0]] == pytest.approx([low, high], abs=5e-4)


def test_newcombe_covers_the_difference_of_correlated_shares():
    generator = np.random.default_rng(0)
    draw = generator.random((20, 4000))
    one, other = (draw < 0.7).astype(float), ((draw < 0.2) | (generator.random((20, 4000)) < 0.2)).astype(float)
    low, high = newcombe(one, other, np.arange(20))
    truth = 0.7 - (1 - 0.8 * 0.8)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.98


def test_newcombe_leaves_out_what_has_no_pair_and_needs_five():
    one, other = fourfold(1, 1, 7, 12)
    more = np.concatenate([one, [[1.0], [np.nan]]]), np.concatenate([other, [[np.nan], [0.0]]])
    assert np.allclose(newcombe(*more, np.arange(23)), newcombe(one, other, np.arange(21)))
    assert np.isnan(newcombe(one[:4], other[:4], np.arange(4))).all()


def test_expanded_tail_known_values():
    """t(0.975, 4) = 2.776445, so the tail is Phi(-sqrt(5/4) * 2.776445)."""
    assert expanded_tail(5) == pytest.approx(0.000954, abs=2e-6)
    assert expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)


def test_spearman_known_values():
    assert spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 9.0])) == pytest.approx(1.0)
    assert math.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_reliability_of_known_signal_and_noise():
    """Head effects of variance 1 under noise of variance v on n examples: their correlation is 1 / (1 + v / n)."""
    generator = np.random.default_rng(0)
    effects, noise = generator.normal(size=(1, 3000)), generator.normal(size=(40, 3000))
    r = split_half_reliability(effects + math.sqrt(40) * noise, np.arange(40))
    pearson = 1 / (1 + 20 / 10)
    half = 6 / math.pi * math.asin(pearson / 2)
    assert 0.4 < r < 0.6
    assert r == pytest.approx(2 * half / (1 + half), abs=0.08)


def test_reliability_extremes():
    values = np.tile(np.arange(10.0), (12, 1))
    assert split_half_reliability(values, np.arange(12)) == pytest.approx(1.0)
    noise = np.random.default_rng(0).normal(size=(12, 5000))
    assert abs(split_half_reliability(noise, np.arange(12))) < 0.05
    assert math.isnan(split_half_reliability(values, np.arange(12) % 4))
    assert math.isnan(split_half_reliability(values[:, :2], np.arange(12)))
