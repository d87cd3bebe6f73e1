"""A run against its baselines: numbers worked out by hand, and how often noise is called a difference."""

import argparse
import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from headatlas.data import verbs
from headatlas.data.against import COLUMNS, compare, effect_size
from headatlas.data.baselines import parent_link
from headatlas.data.errors import StoreError
from headatlas.data.intervals import bootstrap_mean
from headatlas.data.permutation import false_discovery_q, sign_flip_p
from headatlas.data.store import open_store
from scipy.stats import permutation_test, ttest_1samp

from .stores import examples_frame, header

HEADS = 6


def write(store, values, *, probes=("sink",), parent=None, kind="random", card=None, ids=None, **columns):
    """A run of one layer whose heads have these values [example, head]; with a parent, its baseline."""
    values = np.asarray(values, dtype=np.float64)
    count, heads = values.shape
    head = header(examples=count, probes=probes, chunk_size=100)
    head["probes"] = {name: {"version": 1, **(card or {})} for name in probes}
    if parent is not None:
        head["model"]["digest"] = f"weights-{kind}"
        head["parents"] = [parent_link(parent.id, kind)]
    example, place = np.meshgrid(np.arange(count), np.arange(heads), indexing="ij")
    with open_store(store, create=True).writer(head) as writer:
        frame = examples_frame(count, **columns)
        writer.write_examples(frame if ids is None else frame.assign(id=ids))
        for probe in probes:
            rows = {"example": example.ravel(), "probe": probe, "layer": 0, "head": place.ravel()}
            writer.write_rows(0, {**rows, "value": values.ravel(), "n_queries": 9}, [probe])
    return writer.run


def column(heads, *values):
    """The same values [example] for each of so many heads."""
    return np.repeat(np.array(values, dtype=float)[:, None], heads, axis=1)


def pair(tmp_path, values, other, **options):
    run = write(tmp_path, values, **options)
    return run, write(tmp_path, other, parent=run, **options)


def test_every_column_by_hand(tmp_path):
    """Head h has 1 + h everywhere; the baseline has h / 10 in six prompts: differences 1 + 0.9 h, constant."""
    heads = np.arange(HEADS, dtype=float)
    run, base = pair(tmp_path, np.tile(1 + heads, (6, 1)), np.tile(heads / 10, (6, 1)))
    found = run.against("random", "sink")
    assert list(found) == COLUMNS
    assert found["head"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(found["stratum"]) == {"length=128"}
    assert found["mean"].tolist() == pytest.approx([1, 2, 3, 4, 5, 6])
    assert found["baseline"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert found["difference"].tolist() == pytest.approx([1, 1.9, 2.8, 3.7, 4.6, 5.5])
    assert found["ci_low"].tolist() == pytest.approx(found["difference"].tolist())
    assert found["n"].tolist() == [6] * HEADS
    # the baseline's heads have mean 0.25 and variance 0.035 (n - 1), so the first head lies 0.75 above
    assert found["effect"].tolist() == pytest.approx([(1 + h - 0.25) / math.sqrt(0.035) for h in range(HEADS)])
    # all signs alike is as far as it goes: p = 2 / 64 for every head, and q of equal p is p
    assert found["q"].tolist() == pytest.approx([1 / 32] * HEADS)
    assert run.baselines().keys() == {"random"}
    assert run.baseline("random").id == base.id


def test_the_interval_is_the_bootstrap_of_the_paired_differences(tmp_path):
    """A prompt that is hard for both cancels: the interval is far narrower than that of either run."""
    generator = np.random.default_rng(0)
    shared = 10 * generator.normal(size=(20, 1))
    values = np.float32(shared + 1 + generator.normal(size=(20, HEADS)))
    other = np.float32(shared + generator.normal(size=(20, HEADS)))
    run, _ = pair(tmp_path, values, other, cluster=[f"c{k // 2}" for k in range(20)])
    found = run.against("random", "sink")
    low, high = bootstrap_mean(np.float64(values) - other, np.arange(20) // 2, seed=0)
    assert found["ci_low"].tolist() == pytest.approx(low.tolist())
    assert found["ci_high"].tolist() == pytest.approx(high.tolist())
    assert found["n"].tolist() == [10] * HEADS
    own = run.heads("sink")
    assert ((found["ci_high"] - found["ci_low"]) < (own["ci_high"] - own["ci_low"]) / 4).all()


def test_undefined_pairs_are_left_out_and_never_zero(tmp_path):
    values, other = column(HEADS, 1, 2, 3, 4, 5, 6), column(HEADS, 0, 0, 0, 0, 0, 0)
    values[0, 0] = other[1, 0] = np.nan  # head 0 keeps prompts 2 to 5: four pairs, no interval, no q
    values[:, 1] = np.nan
    run, _ = pair(tmp_path, values, other)
    found = run.against("random", "sink").set_index("head")
    assert found.loc[0, ["mean", "baseline", "difference", "n"]].tolist() == [4.5, 0.0, 4.5, 4]
    assert found.loc[0, ["ci_low", "ci_high", "q"]].isna().all()
    assert found.loc[1, "n"] == 0
    assert found.loc[1, ["mean", "baseline", "difference", "ci_low", "effect", "q"]].isna().all()
    assert found.loc[2:, "q"].tolist() == pytest.approx([1 / 32] * 4)


def test_binary_values_have_newcombe_s_interval(tmp_path):
    """Always against never, in ten prompts: a bootstrap would say 1 to 1."""
    run, _ = pair(tmp_path, np.ones((10, HEADS)), np.zeros((10, HEADS)), card={"binary": True})
    found = run.against("random", "sink").iloc[0]
    assert [found["difference"], found["ci_low"], found["ci_high"]] == pytest.approx([1, 0.607509, 1], abs=1e-6)


def test_lengths_are_not_mixed(tmp_path):
    length = np.repeat([128, 512], 6)
    run, _ = pair(tmp_path, np.repeat(length[:, None], HEADS, 1), np.zeros((12, HEADS)), c_length=length)
    found = run.against("random", "sink").groupby("stratum")["difference"].unique()
    assert {name: one.tolist() for name, one in found.items()} == {"length=128": [128.0], "length=512": [512.0]}
    assert set(run.against("random", "sink", stratum="length=512")["stratum"]) == {"length=512"}
    assert run.against("random", "sink", part="late").empty


def test_the_order_of_heads_in_the_files_does_not_matter(tmp_path):
    run = write(tmp_path, np.tile(np.arange(6.0), (6, 1)))
    head = {**header(examples=6, probes=("sink",), chunk_size=100), "parents": [parent_link(run.id, "shuffled")]}
    head["data"]["digest"] = "shuffled"
    with open_store(tmp_path).writer(head) as writer:
        writer.write_examples(examples_frame(6))
        rows = {"example": np.tile(np.arange(6), 3), "probe": "sink", "layer": 0, "head": np.repeat([5, 3, 0], 6)}
        writer.write_rows(0, {**rows, "value": np.repeat([50.0, 30.0, 0.0], 6), "n_queries": 9}, ["sink"])
    found = run.against("shuffled", "sink").set_index("head")
    assert found["baseline"].dropna().to_dict() == {0: 0.0, 3: 30.0, 5: 50.0}
    assert found.loc[1, "n"] == 0


def test_an_effect_needs_heads_that_differ():
    assert np.isnan(effect_size(np.array([1.0]), np.array([1.0, 2.0, 3.0, 4.0]))).all()
    assert np.isnan(effect_size(np.array([1.0]), np.array([1.0, 2.0, 3.0, 4.0, np.nan]))).all()
    rounded = 1 + 1e-7 * np.arange(6)
    assert np.isnan(effect_size(np.array([2.0]), rounded)).all()
    assert np.isnan(effect_size(np.array([2.0]), np.zeros(6))).all()
    assert effect_size(np.array([9.0, np.nan]), np.arange(1.0, 6.0))[0] == pytest.approx(6 / math.sqrt(2.5))


def test_sign_flips_are_counted_exactly():
    """A sum is 15 less twice the flipped: 7 or more from zero where those are {}, 1, 2, 3, 4, 1+2, 1+3, or the rest."""
    values = np.array([1.0, 2.0, 3.0, -4.0, 5.0])[:, None]
    assert sign_flip_p(values, np.arange(5)).tolist() == [2 * 7 / 32]
    assert sign_flip_p(np.abs(values), np.arange(5)).tolist() == [2 / 32]
    assert sign_flip_p(0 * values, np.arange(5)).tolist() == [1.0]
    assert np.isnan(sign_flip_p(values, [0, 1, 2, 3, 3])).all()


def test_exact_p_is_scipy_s():
    values = np.random.default_rng(0).normal(0.4, 1, size=(10, 3))
    expected = [
        permutation_test((one,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True).pvalue
        for one in values.T
    ]
    assert sign_flip_p(values, np.arange(10)).tolist() == pytest.approx(expected)


def test_clusters_flip_together():
    """Ten prompts in five clusters that all agree: 2 / 32, not 2 / 1024."""
    assert sign_flip_p(np.ones((10, 1)), np.arange(10) // 2).tolist() == [2 / 32]


def test_many_clusters_are_sampled_with_a_seed():
    values = np.random.default_rng(0).normal(0.5, 1, size=(40, 3))
    p = sign_flip_p(values, np.arange(40), seed=1)
    assert p.tolist() == sign_flip_p(values, np.arange(40), seed=1).tolist()
    assert sign_flip_p(np.ones((40, 1)), np.arange(40)).tolist() == [1 / 10_001]
    assert p == pytest.approx(ttest_1samp(values, 0).pvalue, abs=0.01)


def test_one_head_among_many_can_be_found():
    """1,000 heads: 10,000 flips would end at q = 0.1; there are 40 a head."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(20, 1000))
    values[:, 7] += 50
    q = false_discovery_q(sign_flip_p(values, np.arange(20)))
    assert q[7] == pytest.approx(1000 / 40_001)
    assert (np.delete(q, 7) > 0.05).all()


def test_q_by_hand():
    """Sorted p 0.01, 0.02, 0.03, 0.5 of four tests: p * 4 / rank, then the least from the right."""
    q = false_discovery_q(np.array([0.5, 0.01, np.nan, 0.03, 0.02]))
    assert q[[0, 1, 3, 4]].tolist() == pytest.approx([0.5, 0.04, 0.04, 0.04])
    assert np.isnan(q[2])
    assert np.isnan(false_discovery_q(np.full(3, np.nan))).all()


@pytest.mark.parametrize("clusters", [10, 24])
def test_noise_is_called_a_difference_as_rarely_as_promised(clusters):
    """400 runs of 20 heads that differ from their baseline by noise alone: p < 0.05 in 5 % of heads, and in about 5 %
    of the runs any head at all with q < 0.05 (what Benjamini-Hochberg promises where nothing is there)."""
    generator = np.random.default_rng(5)
    below, any_found = [], []
    for seed in range(400):
        values, other = generator.normal(size=(2, clusters, 20))
        below.append((sign_flip_p(values - other, np.arange(clusters), seed=seed) < 0.05).mean())
        q = false_discovery_q(sign_flip_p(values - other, np.arange(clusters), seed=seed))
        any_found.append((q < 0.05).any())
    assert 0.045 <= np.mean(below) <= 0.055
    assert 0.025 <= np.mean(any_found) <= 0.075


def test_of_what_is_found_one_in_twenty_is_noise_and_intervals_cover():
    generator = np.random.default_rng(6)
    truth = np.repeat([0.0, 1.5], [60, 20])
    false, found, covered = 0, 0, []
    for seed in range(60):
        values = generator.normal(size=(24, 80)) + truth
        result = compare(values, generator.normal(size=(24, 80)), np.arange(24), seed=seed)
        called = result["q"] < 0.05
        false, found = false + int(called[:60].sum()), found + int(called.sum())
        covered.append(((result["ci_low"] <= truth) & (truth <= result["ci_high"])).mean())
    assert found > 60 * 18
    assert 0.02 <= false / found <= 0.06
    assert 0.93 <= np.mean(covered) <= 0.97


def test_a_missing_baseline_is_one_line_with_the_command(tmp_path):
    run = write(tmp_path, np.ones((6, HEADS)))
    with pytest.raises(StoreError) as caught:
        run.against("random", "sink")
    assert str(caught.value) == (
        f"run {run.id} has no baseline 'random' (random weights); it has none. `headatlas measure org/Tiny-LM --probes "
        f"sink --data repeats:length=128 --examples 6 --seed 0 --store {tmp_path} --baselines` measures it"
    )
    base = write(tmp_path, np.ones((6, HEADS)), parent=run)
    with pytest.raises(StoreError, match=r"no baseline 'shuffled' \(shuffled tokens\); it has random\. `headatlas"):
        run.against("shuffled")
    with pytest.raises(StoreError, match=rf"is itself a baseline, the random weights of {run.id}; name that run"):
        base.against("random")
    with pytest.raises(
        StoreError, match=r"unknown baseline 'randm'\. Did you mean 'random'\? Expected one of random, "
    ):
        run.against("randm")
    with pytest.raises(StoreError, match=r"holds no probe 'sinc'\. Did you mean 'sink'"):
        run.against("random", "sinc")


def test_a_probe_that_the_baseline_lacks_says_why(tmp_path):
    run = write(tmp_path, np.ones((6, HEADS)), probes=("sink", "entropy", "order"))
    base = write(tmp_path, np.ones((6, HEADS)), parent=run)
    assert set(run.against("random")["probe"]) == {"sink"}
    with pytest.raises(
        StoreError, match=rf"random weights of run {run.id} hold no 'entropy': `headatlas measure .* --b"
    ):
        run.against("random", "entropy")
    from headatlas.data.atomic import write_json

    write_json(base.path / "run.json", {**base.header, "skipped": {"order": "reads the order of tokens"}})
    with pytest.raises(StoreError, match=r"hold no 'order': reads the order of tokens$"):
        run.against("random", "order")


def test_nothing_in_common_is_an_empty_table(tmp_path, capsys):
    run = write(tmp_path, np.ones((6, HEADS)), probes=("entropy",))
    write(tmp_path, np.ones((6, HEADS)), parent=run, probes=("sink",))
    assert list(run.against("random")) == COLUMNS
    assert len(run.against("random")) == 0
    assert call(capsys, "--store", tmp_path, "--against", "random").endswith("no values yet\n")


def test_other_prompts_are_refused(tmp_path):
    run = write(tmp_path, np.ones((6, HEADS)))
    base = write(tmp_path, np.ones((6, HEADS)), parent=run, ids=[f"x{k}" for k in range(6)])
    with pytest.raises(StoreError, match=rf"run {base.id} holds other prompts than {run.id}"):
        run.against("random", "sink")


def test_ids_say_what_a_baseline_is_and_the_run_itself_comes_first(tmp_path):
    run, base = pair(tmp_path, np.ones((6, HEADS)), np.zeros((6, HEADS)))
    assert base.id.startswith("tiny-lm-repeats-random-")
    store = open_store(tmp_path)
    assert store.run("latest").id == run.id
    assert store.run("tiny-lm").id == run.id
    assert store.run("tiny-lm-repeats-r").id == base.id
    listed = store.runs().set_index("run_id")["baseline"]
    assert listed[base.id] == "random"
    assert pd.isna(listed[run.id])


def test_one_baseline_can_belong_to_two_runs(tmp_path):
    """Two checkpoints of one architecture have the same random weights."""
    run = write(tmp_path, np.ones((6, HEADS)))
    base = write(tmp_path, np.zeros((6, HEADS)), parent=run)
    with open_store(tmp_path).writer({**base.header, "parents": [parent_link("another", "random")]}):
        pass
    assert [one["run"] for one in base.header["parents"]] == [run.id, "another"]
    assert run.baseline("random").id == base.id


def call(capsys, *words):
    parser = argparse.ArgumentParser(prog="headatlas show")
    verbs.show_arguments(parser)
    assert verbs.show_run(parser.parse_args([str(word) for word in words])) == 0
    return capsys.readouterr().out


@pytest.fixture
def shown(tmp_path):
    """Head h has 10 * (h - 2) everywhere, its baseline h: effects of both signs."""
    heads = np.arange(HEADS, dtype=float)
    return pair(tmp_path, np.tile(10 * (heads - 2), (6, 1)), np.tile(heads, (6, 1)))


def test_show_against_has_the_largest_effects_of_either_sign_first(shown, capsys):
    out = call(capsys, "latest", "--store", shown[0].path.parent, "--against", "random", "--probe", "sink", "--top", 3)
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == "probe head stratum mean baseline difference interval n effect q".split()
    effect = f"{(30 - 2.5) / math.sqrt(3.5):.4g}"
    assert lines[1] == ["sink", "L0H5", "length=128", "30", "5", "25", "25", "..", "25", "6", effect, "0.03125"]
    assert [line[1] for line in lines[1:]] == ["L0H5", "L0H0", "L0H4"]


def test_show_against_as_json_and_csv(shown, capsys):
    words = ("latest", "--store", shown[0].path.parent, "--against", "random", "--format")
    records = json.loads(call(capsys, *words, "json"))
    assert list(records[0]) == [name for name in COLUMNS if name != "layer"]
    assert (records[0]["head"], records[0]["difference"], records[0]["q"]) == ("L0H5", 25.0, pytest.approx(1 / 32))
    assert len(records) == 3
    rows = list(csv.DictReader(io.StringIO(call(capsys, *words, "csv"))))
    assert [row["head"] for row in rows] == [record["head"] for record in records]


def test_undefined_effects_are_null_and_come_by_difference(tmp_path, capsys):
    run, _ = pair(tmp_path, [[1.0, -3.0, 2.0]] * 4, [[0.0, 0.0, 0.0]] * 4)
    words = ("latest", "--store", tmp_path, "--against", "random", "--probe", "sink")
    records = json.loads(call(capsys, *words, "--format", "json"))
    assert [record["head"] for record in records] == ["L0H1", "L0H2", "L0H0"]
    assert {(record["effect"], record["q"], record["ci_low"]) for record in records} == {(None, None, None)}
    assert call(capsys, *words).splitlines()[1].split()[-5:] == ["-3", "-", "4", "-", "-"]
    assert run.status == "done"


def test_show_says_which_baselines_there_are(shown, capsys):
    run, base = shown
    assert f"\n  against  random weights ({base.id}): --against random\n" in call(capsys, "--store", run.path.parent)
    said = call(capsys, base.id, "--store", run.path.parent)
    assert f"\n  baseline random weights of {run.id}\n" in said
    assert "--against" not in said
