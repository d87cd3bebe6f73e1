"""What the README says of the shipped organisms, and baselines that can be worked out on paper."""

import math

import pytest
import torch
from headatlas.data.catalog import load_data
from headatlas.data.encode import encode
from headatlas.data.vocabulary import Vocabulary
from headatlas.probes.batching import batch
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load

PROBES = all_probes()


def means(model, spec, *names, examples=24, seed=5):
    """{probe: [layer, head, part]}, means over examples."""
    data = load_data(spec, Vocabulary(model.tokenizer, model.config.vocab_size), examples=examples, seed=seed)
    needs = frozenset().union(*(PROBES[name].needs for name in names))
    seen = observe(model, encode(data.examples, model.tokenizer), needs)
    return {
        name: torch.stack([PROBES[name].measure(stats).values.double().nanmean(0) for stats in seen]) for name in names
    }


def test_pico_sink_has_one_active_dormant_head_and_the_scores_find_it():
    model = load("organism:pico-sink")
    found = means(model, "bigram_backcopy:length=64", "active_dormant", "value_drain", "sink_detector")
    off, on, difference = found["active_dormant"][1, 0].tolist()
    assert off > 0.7 and on < 0.05
    assert found["value_drain"][1, 0].item() < 0.3
    others = [found["active_dormant"][place][2].item() for place in ((0, 0), (0, 1), (1, 1))]
    assert max(others) < 0.2 < 0.7 < difference
    row, column = found["sink_detector"].unbind(-1)
    assert row.argmin().item() == 2 and column[1, 0].item() > 0.9  # L1H0: narrow rows, one even column


@pytest.mark.parametrize("name", ["pico-lm", "pico-lm-seed1", "pico-lm-seed2"])
def test_the_second_layer_of_pico_lm_retrieves_and_no_other_head_does(name):
    model = load(f"organism:{name}")
    for spec in ("secrets:lengths=128", "secrets:lengths=256", "secrets:lengths=192,frames=train"):
        score = means(model, spec, "retrieval", examples=20)["retrieval"][..., 0]
        assert (score[1] > 0.5).all(), spec
        assert (score[[0, 2, 3, 4, 5]] < 0.15).all(), spec


@pytest.mark.parametrize("name", ["pico-lm", "pico-sink"])
def test_one_token_repeated_has_no_sink_under_rotary_positions(name):
    model = load(f"organism:{name}")
    made = batch(model, torch.full((3, 64), 17))
    rates = [PROBES["sink_rate"].measure(stats).values for stats in observe(model, made, PROBES["sink_rate"].needs)]
    assert torch.stack(rates).abs().sum() == 0


def test_a_model_whose_queries_are_zero_scores_at_the_baselines_on_paper():
    """Every row is uniform: 1/i for each of i keys."""
    model = load("organism:pico-lm")
    for layer in model.network.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    n = 80
    ids = torch.arange(3, 3 + n)[None]
    names = ("first_token_mass", "sink_onset", "later_sink", "effective_keys", "entropy", "coverage", "gini", "heavy_hitters",
             "windowed_distance", "previous_token", "streaming_recall")  # fmt: skip
    needs = frozenset().union(*(PROBES[name].needs for name in names))
    found = {
        name: [PROBES[name].measure(stats).values[0] for stats in observe(model, batch(model, ids), needs)]
        for name in names
    }

    def same(name, *expected):
        for values in found[name]:
            for head in values.tolist():
                assert head[: len(expected)] == pytest.approx(expected, rel=1e-4)

    rows = range(1, n + 1)
    tail = range(n - 63, n + 1)
    received = [sum(1 / i for i in range(k, n + 1)) for k in rows]
    same("first_token_mass", sum(1 / i for i in rows) / n)
    same("sink_onset", sum(1 / i for i in range(1, 17)) / 16, sum(1 / i for i in range(1, 33)) / 32)
    same("later_sink", received[1] / (n - 1))
    same("effective_keys", (n + 1) / 2)
    same("entropy", sum(math.log(i) for i in rows) / n)
    same("coverage", sum(math.ceil(round(0.95 * i, 6)) / i for i in tail) / 64)
    same("heavy_hitters", sum(received[:4]) / n, sum(received[:8]) / n, sum(received[:16]) / n)
    same("previous_token", sum(1 / i for i in range(2, n + 1)) / (n - 1))
    same(
        "streaming_recall", sum(20 / i for i in range(21, n + 1)) / (n - 20), sum(68 / i for i in range(69, n + 1)) / 12
    )
    same("windowed_distance", sum(sum(min(i - j, 10) for j in range(1, i + 1)) / i for i in rows) / n)
    assert torch.stack(found["gini"]).abs().max() < 1e-5
