import numpy as np
import pandas as pd
import pytest
from headatlas.data.intervals import bootstrap_mean
from headatlas.data.store import open_store
from headatlas.data.summary import strata_of, summarise

from .stores import examples_frame, fill, header


def single_head(values, **columns):
    """A run of one probe and one head with these values, one per example."""
    count = len(values)
    rows = {"example": np.arange(count), "probe": "sink", "layer": 0, "head": 0, "value": values, "n_queries": 9}
    return rows, examples_frame(count, **columns)


def heads_of(tmp_path, values, *, strata=("length",), card=None, **columns):
    rows, examples = single_head(values, **columns)
    head = header(examples=len(values), probes=("sink",), chunk_size=100)
    head["data"]["strata"] = list(strata)
    head["probes"] = {"sink": {"version": 1, **(card or {})}}
    with open_store(tmp_path, create=True).writer(head) as writer:
        writer.write_examples(examples)
        writer.write_rows(0, rows, ["sink"])
    return writer.run.heads("sink")


def test_mean_interval_and_counts(tmp_path):
    values = np.arange(12.0)
    values[3] = np.nan
    heads = heads_of(tmp_path, values, cluster=[f"c{k // 2}" for k in range(12)])
    assert len(heads) == 1
    one = heads.iloc[0]
    assert one["stratum"] == "length=128"
    assert (one["n"], one["n_examples"]) == (6, 11)
    assert one["mean"] == pytest.approx(np.nanmean(values))
    assert 0 < one["ci_low"] < one["mean"] < one["ci_high"] < 11
    assert np.isnan(one["reliability"])


def test_strata_never_mix_lengths(tmp_path):
    length = np.tile([128, 512], 12)
    depth = np.repeat([0.0, 0.5, 1.0], 8)
    values = length + depth
    heads = heads_of(tmp_path, values, strata=("length", "depth"), c_length=length, c_depth=depth)
    means = heads.set_index("stratum")["mean"].to_dict()
    assert means == {
        "length=128": 128.5,
        "length=128;depth=0": 128.0,
        "length=128;depth=0.5": 128.5,
        "length=128;depth=1": 129.0,
        "length=512": 512.5,
        "length=512;depth=0": 512.0,
        "length=512;depth=0.5": 512.5,
        "length=512;depth=1": 513.0,
    }
    assert list(means)[:2] == ["length=128", "length=128;depth=0"]
    cells = heads[heads["stratum"].str.contains("depth")]
    assert cells["n"].tolist() == [4] * 6
    assert cells["ci_low"].isna().all()


def test_lengths_without_a_condition_are_split_by_doublings():
    same = pd.DataFrame({"tokens": [40, 40]})
    assert [name for name, _ in strata_of(same, ["length"])] == ["length=40"]
    mixed = pd.DataFrame({"tokens": [5, 127, 128, 255, 7]})
    found = {name: members.tolist() for name, members in strata_of(mixed, [])}
    assert found == {"length=4..7": [0, 4], "length=64..127": [1], "length=128..255": [2, 3]}
    assert list(found) == ["length=4..7", "length=64..127", "length=128..255"]


def test_binary_values_get_wilson(tmp_path):
    heads = heads_of(tmp_path, [0.0] * 10, card={"binary": True})
    assert heads[["mean", "ci_low", "ci_high"]].iloc[0].tolist() == pytest.approx([0, 0, 0.27753], abs=1e-5)


def test_binary_values_in_clusters_count_clusters(tmp_path):
    heads = heads_of(tmp_path, [1.0, 0.0] * 10, card={"binary": True}, cluster=[f"c{k // 2}" for k in range(20)])
    assert heads[["ci_low", "ci_high"]].iloc[0].tolist() == pytest.approx([0.23659, 0.76341], abs=1e-5)


def test_an_undefined_head_stays_undefined(tmp_path):
    one = heads_of(tmp_path, [np.nan] * 8).iloc[0]
    assert one[["mean", "ci_low", "ci_high"]].isna().all()
    assert (one["n"], one["n_examples"]) == (0, 0)


def test_heads_agree_with_pandas_and_the_stored_table_with_the_computed(tmp_path):
    with open_store(tmp_path, create=True).writer(header()) as writer:
        fill(writer)
    run = writer.run
    heads = run.heads("entropy")
    means = run.rows("entropy").groupby(["layer", "head"])["value"].mean()
    assert heads.set_index(["layer", "head"])["mean"].to_dict() == pytest.approx(means.to_dict())
    assert (heads["reliability"] == 1.0).all()
    pd.testing.assert_frame_equal(run.heads(), summarise(run.header, run.examples(), run.rows), check_dtype=False)
    assert len(run.heads("entropy", part="", stratum="length=128")) == 6
    assert run.heads("entropy", part="late").empty


def test_intervals_are_those_of_the_rows(tmp_path):
    values = np.random.default_rng(0).normal(size=30)
    one = heads_of(tmp_path, values).iloc[0]
    low, high = bootstrap_mean(np.float32(values)[:, None], np.arange(30), seed=5)
    assert one["ci_low"] == pytest.approx(low[0], abs=0.03)
    assert one["ci_high"] == pytest.approx(high[0], abs=0.03)


def test_null_layer_and_head_are_places_of_their_own(tmp_path):
    head = header(examples=6, probes=("sink",), chunk_size=6)
    with open_store(tmp_path, create=True).writer(head) as writer:
        writer.write_examples(examples_frame(6))
        rows = {"example": np.tile(np.arange(6), 2), "probe": "sink", "layer": [None] * 6 + [0] * 6, "head": None}
        writer.write_rows(0, {**rows, "value": [2.0] * 6 + [3.0] * 6, "n_queries": 1}, ["sink"])
    heads = writer.run.heads()
    assert heads["layer"].isna().tolist() == [True, False]
    assert heads["mean"].tolist() == [2.0, 3.0]
