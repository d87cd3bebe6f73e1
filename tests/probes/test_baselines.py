"""`measure(..., baselines=True)`: random weights and shuffled tokens as linked runs, made once, resumed, and told apart."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.data.store import open_store
from headatlas.probes import baselines as making
from headatlas.probes import measure as measuring
from headatlas.probes.baselines import random_weights
from headatlas.probes.catalog import all_probes
from headatlas.probes.loading import load
from headatlas.probes.measure import measure, plan_runs
from headatlas.probes.wording import plan_text

from ..data.tokenizers_offline import word_level
from .architectures import ARCHITECTURES
from .tiny import HEADS, LAYERS, files, rows_of, tiny, tiny_network

FEW = "entropy,previous_token,induction"
DATA = "repeats:length=40"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def model():
    return tiny(tokenizer=word_level())


@pytest.fixture
def run(model, tmp_path):
    return measure(model, FEW, DATA, examples=20, store=tmp_path / "runs", baselines=True)


def test_each_run_has_two_baselines_that_name_it(run):
    found = run.baselines()
    assert list(found) == ["random", "shuffled"]
    for kind, base in found.items():
        assert base.header["parents"] == [{"run": run.id, "relation": "baseline-of", "kind": kind}]
        assert f"-repeats-{kind}-" in base.id
        assert (base.status, list(base.header["probes"])) == ("done", list(run.header["probes"]))
        assert len(rows_of(base)) == len(rows_of(run)) == 20 * 3 * LAYERS * HEADS
        assert base.examples()["id"].tolist() == run.examples()["id"].tolist()
        assert base.examples()["tokens"].tolist() == run.examples()["tokens"].tolist()
    assert found["random"].header["model"]["digest"] != run.header["model"]["digest"]
    assert found["random"].header["data"] == run.header["data"]
    assert found["shuffled"].header["model"]["digest"] == run.header["model"]["digest"]
    assert found["shuffled"].header["data"]["digest"] != run.header["data"]["digest"]
    assert open_store(run.path.parent).run().id == run.id


def test_shuffled_examples_are_stored_as_they_were_read(run):
    own, base = run.examples(), run.baseline("shuffled").examples()
    for before, after in zip(own["token_ids"].dropna(), base["token_ids"].dropna(), strict=True):
        assert before[0] == after[0]
        assert sorted(before) == sorted(after)
        assert list(before) != list(after)
    tokenizer = word_level()
    assert base["text"][0] == tokenizer.decode(base["token_ids"][0])
    assert len(base["token_ids"].dropna()) == 8


def test_the_numbers_are_those_of_the_model_on_shuffled_ids(model, run, tmp_path):
    """The same ids, shuffled by hand and given as a data set of their own."""
    from headatlas.data.examples import Example
    from headatlas.data.jsonl import write_examples

    ids = run.baseline("shuffled").examples()["token_ids"].dropna()
    path = tmp_path / "by_hand.jsonl"
    write_examples(path, [Example(id=f"e{k}", token_ids=tuple(int(i) for i in one[1:])) for k, one in enumerate(ids)])
    by_hand = rows_of(measure(model, "entropy,previous_token", str(path), store=tmp_path / "other"))
    stored = rows_of(run.baseline("shuffled"))
    stored = stored[stored["example"].lt(8) & stored["probe"].ne("induction")]
    np.testing.assert_allclose(stored["value"], by_hand["value"], rtol=1e-5, atol=1e-6)


def test_random_weights_are_seeded_and_leave_the_model_as_it_is(model):
    state, before = torch.random.get_rng_state(), model.digest
    one, two, other = (random_weights(model, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest == two.digest
    assert len({before, one.digest, other.digest}) == 3
    assert (one.name, one.dtype, one.device) == (model.name, model.dtype, model.device)
    assert one.tokenizer is model.tokenizer
    assert not one.network.training
    assert [call.heads for call in one.calls] == [HEADS] * LAYERS
    assert replace(model).digest == before
    std = one.network.model.layers[0].self_attn.q_proj.weight.std().item()
    assert std == pytest.approx(model.config.initializer_range, rel=0.1)


def test_random_weights_keep_the_data_type():
    half = load((tiny_network().to(torch.bfloat16), None))
    made = random_weights(half, seed=0)
    assert made.dtype == "bfloat16"
    assert {parameter.dtype for parameter in made.network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["bert", "bloom", "gpt_oss", "falcon sdpa", "albert"])
def test_other_architectures(name, tmp_path):
    model = load((ARCHITECTURES[name].build(), None))
    run = measure(model, "entropy", "random:length=20", examples=6, store=tmp_path, baselines=True)
    for base in run.baselines().values():
        assert base.header["backend"] == run.header["backend"]
        assert np.isfinite(rows_of(base)["value"]).all()


def test_random_weights_are_checked_like_any_model(model, monkeypatch):
    def refuses(made):
        raise UserError(f"{made.name}: its outputs change")

    monkeypatch.setattr(making, "check_capture", refuses)
    with pytest.raises(UserError, match="its outputs change"):
        random_weights(model, seed=0)


def test_a_model_that_can_not_be_made_anew_is_refused(model, monkeypatch):
    def fails(config, **options):
        raise ValueError("no such shape")

    monkeypatch.setattr(type(model.network), "_from_config", fails)
    message = r"can't be initialised anew from its config, so it has no baseline of random weights: no such shape\. Mea"
    with pytest.raises(UserError, match=message):
        random_weights(model, seed=0)


def test_the_same_call_again_writes_nothing_new_and_more_probes_join(model, run):
    options = {"data": DATA, "examples": 20, "store": run.path.parent, "baselines": True}
    before = {base.id: files(base.path, "*.parquet") for base in (run, *run.baselines().values())}
    again = measure(model, FEW, **options)
    assert again.id == run.id
    assert {base.id: files(base.path, "*.parquet") for base in (run, *run.baselines().values())} == before
    assert len(open_store(run.path.parent).runs()) == 3
    measure(model, "mean_distance", **options)
    assert {len(base.header["probes"]) for base in (run, *run.baselines().values())} == {4}


def test_baselines_can_come_later(model, tmp_path):
    options = {"data": DATA, "examples": 20, "store": tmp_path}
    run = measure(model, FEW, **options)
    assert run.baselines() == {}
    with pytest.raises(UserError, match=r"no baseline 'random' .*--baselines` measures it"):
        run.against("random", "entropy")
    assert measure(model, FEW, **options, baselines=True).id == run.id
    assert list(run.baselines()) == ["random", "shuffled"]


def test_stopped_in_a_baseline_and_given_again(model, tmp_path, monkeypatch):
    real, calls = measuring.observe, []

    def stops(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    options = {"data": DATA, "examples": 20, "store": tmp_path / "a", "baselines": True}
    monkeypatch.setattr(measuring, "observe", stops)
    with pytest.raises(KeyboardInterrupt):
        measure(model, FEW, **options)
    (base,) = open_store(tmp_path / "a").run().baselines().values()
    assert (base.header["parents"][0]["kind"], base.status) == ("random", "interrupted")
    monkeypatch.setattr(measuring, "observe", real)
    run, whole = measure(model, FEW, **options), measure(model, FEW, **{**options, "store": tmp_path / "b"})
    for kind, base in whole.baselines().items():
        assert rows_of(run.baseline(kind)).equals(rows_of(base))


def test_progress_counts_the_baselines(model, tmp_path):
    seen = []
    measure(model, "entropy", DATA, examples=20, store=tmp_path, baselines=True, report=seen.append)
    assert len({one.run for one in seen}) == 3
    assert [one.examples for one in seen] == [16, 20] * 3


def test_a_plan_says_which_baseline_it_is(model, run):
    plans = plan_runs(model, [all_probes()["entropy"]], DATA, examples=20, baselines=True)
    starts = [f"{model.name} on {plans[0].data.spec}{kind}: " for kind in ("", ", random weights", ", shuffled tokens")]
    for plan, start in zip(plans, starts, strict=True):
        assert plan_text(plan, run.path.parent / "nothing").startswith(f"{start}1 probes, 20 examples")
        assert plan_text(plan, run.path.parent).startswith(f"{start}all measured already, in ")


def test_a_probe_of_the_order_is_left_out_on_shuffled_tokens(model, tmp_path):
    probes = [all_probes()["entropy"], replace(all_probes()["previous_token"], not_shuffled="reads what follows")]
    plans = plan_runs(model, probes, DATA, examples=6, baselines=True)
    assert [[one.name for one in plan.probes] for plan in plans] == [["entropy", "previous_token"]] * 2 + [["entropy"]]
    assert plans[2].skipped["previous_token"] == "reads what follows"
    runs = [measuring.carry_out(plan, tmp_path) for plan in plans]
    with pytest.raises(UserError, match="hold no 'previous_token': reads what follows"):
        runs[0].against("shuffled", "previous_token")
    assert len(runs[0].against("random", "previous_token")) == LAYERS * HEADS
    assert len(plan_runs(model, probes[1:], DATA, examples=6, baselines=True)) == 2


def test_against_random_weights_a_sharp_model_stands_out(model, run):
    """Weights times six: its entropy lies below that of any untrained head."""
    found = run.against("random", "entropy")
    assert len(found) == LAYERS * HEADS
    assert (found["ci_high"] < 0).all()
    assert (found["q"] < 0.001).all()
    assert (found["effect"] < -5).all()
    assert found["n"].tolist() == [20] * LAYERS * HEADS


def test_a_retrieval_score_has_no_meaning_on_shuffled_tokens(model, tmp_path):
    from headatlas.data.examples import Example
    from headatlas.data.jsonl import write_examples

    ids = [tuple(range(5 + k, 25 + k)) for k in range(6)]
    spans = {"needle": ((4, 7),)}
    write_examples(
        tmp_path / "needles.jsonl",
        [Example(id=f"e{k}", token_ids=one, answer_ids=one[4:7], spans=spans) for k, one in enumerate(ids)],
    )
    run = measure(
        model, "retrieval,needle_mass", str(tmp_path / "needles.jsonl"), store=tmp_path / "runs", baselines=True
    )
    assert list(run.baseline("random").header["probes"]) == ["retrieval", "needle_mass"]
    assert list(run.baseline("shuffled").header["probes"]) == ["needle_mass"]
    with pytest.raises(
        UserError, match="hold no 'retrieval': once tokens are shuffled the answer is not what the need"
    ):
        run.against("shuffled", "retrieval")
