"""The training loop, its measures, and the shipped weights against their certificates."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from headatlas.data.organisms.rows import Encoder
from headatlas.data.organisms.shelf import certificate, organism_path, organisms
from headatlas.data.organisms.tasks import needle
from headatlas.probes.training.certify import certificate_rows, certify, shelve
from headatlas.probes.training.feeds import draw_batch
from headatlas.probes.training.gauges import grade, repeat_accuracy
from headatlas.probes.training.intervals import row_bootstrap, wilson
from headatlas.probes.training.pico_lm import RECIPE
from headatlas.probes.training.recipe import Feed, Gate, Recipe, Shape, Stage
from headatlas.probes.training.sink_measures import backcopy_batch, head_rows, observe, sink_share
from headatlas.probes.training.train import grown, new_model, rate_at, train_organism
from transformers import AutoModelForCausalLM, AutoTokenizer

SHORT = {"tasks": 1.0, "needle": 1.0, "reversed_pairs": 1.0, "text": 1.0, "bigram_backcopy": 1.0, "english": 1.0}
TINY = Recipe(
    name="pico-lm",
    shape=Shape(hidden=32, heads=4, key_value_heads=2, feed_forward=32),
    stages=(
        Stage(name="first", layers=1, steps=1, feeds=(Feed(17, 1.0, {"repeats": 1.0}),), rate=1e-3, tokens=64),
        Stage(name="second", layers=2, steps=2, feeds=(Feed(64, 1.0, SHORT),), rate=1e-3, tokens=256, decay=0.5),
    ),
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture(scope="module", params=organisms())
def shipped(request: pytest.FixtureRequest):
    torch.set_num_threads(1)
    return request.param, AutoModelForCausalLM.from_pretrained(organism_path(request.param), dtype=torch.float32).eval()


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_seed_fixes_the_weights(tmp_path: Path) -> None:
    one, two, other = (
        train_organism(TINY, seed=seed, out=tmp_path / str(at), quiet=True) for at, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))
    record = json.loads((tmp_path / "0" / "training.json").read_text())
    assert record["steps"] == {"first": 1, "second": 2}
    assert record["seed"] == 0


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = train_organism(TINY, seed=0, out=tmp_path / "whole", quiet=True)
    first = dataclasses.replace(TINY, stages=TINY.stages[:1])
    train_organism(first, seed=0, out=tmp_path / "parts", quiet=True)
    resumed = train_organism(TINY, seed=0, out=tmp_path / "parts", quiet=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_growing_leaves_the_function_alone(encoder: Encoder) -> None:
    torch.manual_seed(0)
    small = new_model(TINY, encoder, layers=1).eval()
    large = grown(small, TINY, encoder, layers=3).eval()
    ids = torch.arange(8, 40)[None]
    assert large.config.num_hidden_layers == 3
    assert torch.allclose(small(ids).logits, large(ids).logits, atol=1e-6)


def test_an_unknown_recipe_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'pico-lm'"):
        train_organism("organism:pico-ml", seed=0, out=tmp_path)


def test_a_gate_that_is_not_reached_stops_the_run(tmp_path: Path) -> None:
    stage = dataclasses.replace(TINY.stages[0], gate=Gate("repeats", 16, 0.9, every=1))
    with pytest.raises(RuntimeError, match=r"did not reach 0\.9 on repeats"):
        train_organism(dataclasses.replace(TINY, stages=(stage,)), seed=0, out=tmp_path, quiet=True)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    stage = Stage(name="x", layers=1, steps=100, feeds=(), rate=1.0, decay=0.5, warm_up=10)
    assert [rate_at(stage, step) for step in (0, 9, 40, 75, 100)] == [0.1, 1.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_batch_depends_on_seed_and_step_alone(encoder: Encoder, step: int) -> None:
    mixture = RECIPE.stages[-1]
    ids, loads = draw_batch(encoder, mixture, seed=7, step=step)
    again, _ = draw_batch(Encoder(), mixture, seed=7, step=step)
    assert (ids == again).all()
    assert (ids[:, 0] == encoder.bos).all()
    assert (loads[:, 0] == 0).all()
    assert (loads[ids == encoder.pad] == 0).all()
    assert (loads.sum(axis=1) > 0.79).all(), "at least one whole prompt of a packed row, 0.5, and its text, 0.3"


def test_wilson_and_bootstrap_against_known_values() -> None:
    assert wilson(19, 20) == pytest.approx((0.7639, 0.9911), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert row_bootstrap(np.ones((5, 3))) == (1.0, 1.0)


def test_a_sink_is_counted_by_sequence() -> None:
    attention = torch.zeros(1, 2, 1, 4, 4)
    attention[0, 0, 0, :, 0] = 0.31
    attention[0, 1, 0, :, 0] = 0.29
    assert sink_share(attention).item() == 0.5


def test_a_folder_of_another_run_is_not_written_to(tmp_path: Path) -> None:
    train_organism(TINY, seed=0, out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="holds a run of pico-lm with seed 0, asked for was pico-lm with seed 1"):
        train_organism(TINY, seed=1, out=tmp_path / "run", quiet=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="holds files that are no training run; name a new folder"):
        train_organism(TINY, seed=0, out=tmp_path / "mine", quiet=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_certificate_is_written_and_shelved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import headatlas.probes.training.certify as module

    runs = [tmp_path / str(seed) for seed in (0, 1)]
    monkeypatch.setitem(module.MEASURES, "pico-lm", lambda model, encoder, *, scale, seed: [
        {"task": "repeats", "length": 256, "exact": 0.5, "n": 4, "target": 0.95, "met": False}
    ])  # fmt: skip
    for seed, run in enumerate(runs):
        train_organism(TINY, seed=seed, out=run, quiet=True)
        assert certify(run)["unmet"] == ["repeats 256: 0.5, target 0.95"]
    monkeypatch.setattr(module, "SHELF", tmp_path / "shelf")
    (tmp_path / "shelf").mkdir()
    folder = shelve("pico-lm", runs, why=["too short"])
    found = json.loads((folder / "certificate.json").read_text())
    assert found["why"] == ["too short"]
    assert [row["seed"] for row in certificate_rows(found)] == [0, 1]
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2


def test_an_organism_loads_with_its_tokenizer(shipped, encoder: Encoder) -> None:
    name, model = shipped
    tokenizer = AutoTokenizer.from_pretrained(organism_path(name))
    text = "When Mary and John went to the store, John gave a naïve drink to"
    assert tokenizer.encode(text) == encoder.tokenizer.encode(text)
    assert model.config.vocab_size == len(tokenizer)
    turns = [{"role": "system", "content": "You are Mary."}, {"role": "user", "content": "What is your name?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered.startswith("<bos><|system|>")
    assert rendered.endswith("<|assistant|>")


def test_pico_lm_still_does_what_its_certificate_says(encoder: Encoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(organism_path("pico-lm"), dtype=torch.float32).eval()
    said = {
        (row["task"], row.get("split"), row.get("length")): row["exact"]
        for row in certificate("pico-lm")["rows"]
        if row.get("depth") in (None, "all") and "exact" in row
    }
    measured = repeat_accuracy(model, encoder, length=256, rows=16, seed=1)
    assert measured == pytest.approx(said["repeats", None, 256], abs=0.05)
    rng = random.Random(1)
    prompts = [
        needle.make(rng, count_tokens=encoder.count, length=128, depth=index / 47, distractors=index % 4)
        for index in range(48)
    ]
    exact = np.mean([graded.exact for graded in grade(model, encoder, prompts)])
    assert exact == pytest.approx(said["needle", "train", 128], abs=0.15)


def test_pico_sink_still_sinks(encoder: Encoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(organism_path("pico-sink"), dtype=torch.float32).eval()
    ids, trigger, _ = backcopy_batch(encoder, rows=16, seed=1)
    rows = head_rows(observe(model, ids), trigger)
    dormant = {row["head"] for row in rows if row.get("note") == "active-dormant"}
    said = {row["head"] for row in certificate("pico-sink")["rows"] if row.get("note") == "active-dormant"}
    assert dormant == said
    assert said
