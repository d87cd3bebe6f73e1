"""`learn` from prompts to the store: what is taken from the model, what lands, what is refused."""

import os

import headatlas as ha
import numpy as np
import pytest
import torch
from headatlas.__main__ import main
from headatlas.data.agreement import agreement, find_values
from headatlas.data.errors import UserError
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.data.store import open_store
from headatlas.probes.features import head_vectors
from headatlas.probes.forward import observe
from headatlas.probes.learn import Settings, plan_learning
from headatlas.probes.linear_probe import PARTS, read_linearly

from .tiny import HEADS, LAYERS, tiny


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def data(tmp_path):
    """24 prompts whose last token is their label, each followed by an answer."""
    generator = np.random.default_rng(0)
    examples = [
        Example(
            id=f"e{k}",
            token_ids=(*generator.integers(20, 90, 4 + k % 3).tolist(), 5 + k % 2),
            answer_ids=(10 + k % 2, 12),
            conditions={"kind": "odd" if k % 2 else "even", "always": 1, **({"some": 1} if k else {})},
        )
        for k in range(24)
    ]
    write_examples(tmp_path / "kinds.jsonl", examples)
    return str(tmp_path / "kinds.jsonl")


def plan(model, data, at):
    return plan_learning(model, data, Settings("kind", at), examples=24, seed=0, bos="default", batch_tokens=40)


@pytest.mark.parametrize("at", ["last", "mean", "answer"])
def test_vectors_are_the_outputs_at_the_place(model, data, at):
    """Every example alone and unpadded, against the batches of the run."""
    made = plan(model, data, at).plan
    vectors = head_vectors(made, at)
    assert set(vectors) == {("text", layer) for layer in range(LAYERS)}
    for index, example in enumerate(made.data.examples):
        batch = made.encode([example])
        ids = batch.ids_of(0)
        assert len(ids) == len(example.token_ids) + (2 if at == "answer" else 0)
        place = {"last": slice(-1, None), "mean": slice(None), "answer": slice(-2, None)}[at]
        for stats in observe(model, batch, {"output"}):
            expected = stats["output"][0, :, place].mean(1).numpy()
            np.testing.assert_allclose(vectors["text", stats.layer][index], expected, atol=2e-5)


def test_a_run_lands_in_the_store_and_is_not_learned_again(model, data, tmp_path):
    run = ha.learn(model, data, label="kind", examples=24, controls=2, store=tmp_path / "runs")
    heads = run.heads("linear_probe", part="accuracy")
    assert len(heads.dropna(subset=["head"])) == LAYERS * HEADS * heads["stratum"].nunique()
    assert heads["head"].isna().sum() == LAYERS * heads["stratum"].nunique()
    rows = run.rows("linear_probe")
    assert rows.loc[rows["part"] == "accuracy", "value"].isin([0, 1]).all()
    made = plan_learning(model, data, Settings("kind", controls=2), examples=24, seed=0, bos="default")
    by_hand = read_linearly(head_vectors(made.plan, "last")["text", 1][:, 2], made.task)
    for index, part in enumerate(PARTS):
        stored = rows[(rows["part"] == part) & (rows["layer"] == 1) & (rows["head"] == 2)].sort_values("example")
        assert stored["value"].to_numpy() == pytest.approx(by_hand[:, index])
    assert run.header["kind"] == "learn" and "-learn-" in run.id and run.status == "done"
    before = os.stat(run.path / "run.json").st_mtime_ns
    again = ha.learn(model, data, label="kind", examples=24, controls=2, store=tmp_path / "runs")
    assert again.id == run.id and os.stat(run.path / "run.json").st_mtime_ns == before
    other = ha.learn(model, data, label="kind", at="mean", examples=24, controls=2, store=tmp_path / "runs")
    assert other.id != run.id


def test_show_compare_and_the_atlas_read_it(model, data, tmp_path, capsys):
    run = ha.learn(model, data, label="kind", examples=24, controls=1, store=tmp_path / "runs")
    assert main(["show", run.id, "--store", str(tmp_path / "runs")]) == 0
    assert "linear_probe" in capsys.readouterr().out
    store = open_store(tmp_path / "runs")
    one, two = (find_values(store, f"{run.id}:linear_probe/{part}") for part in ("control", "selectivity"))
    assert len(one.places) == LAYERS * HEADS
    assert agreement(one, two).heads == LAYERS * HEADS
    assert ha.atlas(run, "linear_probe", part="selectivity").data


def test_random_weights_are_learned_from_as_a_baseline(model, data, tmp_path):
    run = ha.learn(model, data, label="kind", examples=24, baselines=True, store=tmp_path / "runs")
    assert list(run.baselines()) == ["random"]
    found = run.against("random", "linear_probe")
    told = found[(found["part"] == "accuracy") & found["head"].notna()]
    assert len(told) == LAYERS * HEADS and (told["difference"] == told["mean"] - told["baseline"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "kindd"], "has no condition 'kindd'. Did you mean 'kind'? It has always, kind, some"),
        (["--label", "always"], "expected two labels or more to tell apart; every example has '1'"),
        (["--label", "some"], "1 of 24 examples have no 'some'"),
        (["--label", "kind", "--folds", "25"], "expected 25 clusters of examples or more, one for each fold; came 24"),
        (["--label", "kind", "--control", "always"], "expected two types or more, came one"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(model, data, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.setattr("headatlas.probes.learn_verbs.load_model", lambda args: model)
    assert main(["learn", "tiny", "--data", data, "--store", str(tmp_path / "runs"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_answers_that_are_not_there_cannot_be_read(model, tmp_path):
    examples = [Example(id=f"e{k}", token_ids=(5 + k % 2, 9), conditions={"kind": k % 2}) for k in range(12)]
    write_examples(tmp_path / "silent.jsonl", examples)
    with pytest.raises(UserError, match="12 of 12 examples of 'silent' have none"):
        ha.learn(model, str(tmp_path / "silent.jsonl"), label="kind", at="answer", store=tmp_path / "runs")


def test_the_verb_prints_heads_and_layers(model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headatlas.probes.learn_verbs.load_model", lambda args: model)
    torch.manual_seed(0)
    words = ["learn", "tiny", "--data", data, "--label", "kind", "--controls", "1", "--store", str(tmp_path / "runs")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "24 examples, 2 labels: even odd" in said and "L1, whole" in said and "Next: headatlas show" in said


def test_a_dry_run_says_how_much_is_learned_and_learns_nothing(model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headatlas.probes.learn_verbs.load_model", lambda args: model)
    words = ["learn", "tiny", "--data", data, "--label", "kind", "--controls", "2", "--store", str(tmp_path / "runs")]
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().err
    vectors = LAYERS * HEADS + LAYERS
    assert "2 labels of kind, 24 examples" in said
    assert f"then {vectors * 5 * 3:,} fits: {vectors} heads and layers, 5 folds, the labels and 2 draws" in said
    assert not (tmp_path / "runs").exists()
    assert main(words) == 0
    assert main([*words, "--dry-run"]) == 0
    assert "learned already, in llamaforcausallm-kinds-learn-" in capsys.readouterr().err
