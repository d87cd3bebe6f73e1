"""`measure` against the same numbers worked out by hand, stopped anywhere, and given more to do."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from headatlas.data.errors import ProbeError, UserError
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.data.store import open_store
from headatlas.kernels import dispatch
from headatlas.kernels.streaming import streaming_stats
from headatlas.probes import measure as measuring
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.measure import measure
from headatlas.probes.plan import make_plan

from .architectures import ARCHITECTURES
from .tiny import HEADS, LAYERS, files, rows_of, save, tiny, tiny_network

FEW = "entropy,previous_token,first_token_mass"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def model():
    return tiny()


def same_rows(one, other, **limits):
    pd.testing.assert_frame_equal(rows_of(one), rows_of(other), **(limits or {"check_exact": True}))


def write_ids(path, *lengths):
    random = np.random.default_rng(0)
    examples = [
        Example(id=f"e{k}", token_ids=tuple(random.integers(5, 90, length).tolist()))
        for k, length in enumerate(lengths)
    ]
    write_examples(path, examples)
    return str(path)


def test_rows_equal_what_observe_and_the_probe_give_by_hand(model, tmp_path):
    """Every probe, every example alone and unpadded, against the rows of the batched run."""
    run = measure(model, "all", "repeats:length=70", examples=5, store=tmp_path, batch_tokens=150)
    rows = rows_of(run)
    probes = {name: one for name, one in all_probes().items() if set(one.groups) <= {"repeat"} and one.shortest <= 70}
    assert set(run.header["probes"]) == set(probes)
    plan = make_plan(model, list(probes.values()), "repeats:length=70", examples=5)
    checked = 0
    for number, example in enumerate(plan.data.examples):
        alone = plan.encode([example])
        for one in probes.values():
            for stats in observe(model, alone, one.needs):
                reading = one.measure(stats)
                for index, part in enumerate(one.parts or ("",)):
                    here = rows[(rows["example"] == number) & (rows["probe"] == one.name) & (rows["part"] == part)]
                    here = here[here["layer"] == stats.layer].sort_values("head")
                    expected = reading.values[0, :, index].numpy()
                    if one.parts and np.isnan(expected).all():
                        assert here["value"].isna().all()
                        continue
                    np.testing.assert_allclose(here["value"], expected, rtol=1e-5, atol=1e-6)
                    assert here["n_queries"].tolist() == reading.n_queries[0, :, index].tolist()
                    checked += len(here)
    defined = rows[rows["value"].notna() | (rows["part"] == "")]
    assert checked == len(defined)
    assert not rows.duplicated(["example", "probe", "part", "layer", "head"]).any()


def test_n_queries_counts_the_queries_that_have_a_say(model, tmp_path):
    run = measure(model, "all", "repeats:length=70", examples=2, store=tmp_path)
    counts = {probe: set(rows["n_queries"]) for probe, rows in rows_of(run).groupby("probe")}
    assert counts["entropy"] == counts["first_token_mass"] == {70}
    assert counts["normalized_entropy"] == counts["entropy_bound_gap"] == counts["previous_token"] == {69}
    assert counts["induction"] == counts["duplicate_token"] == {35}
    assert counts["sink_rate"] == {64}


def test_the_same_command_again_writes_nothing_new(model, tmp_path):
    options = {"data": "random:length=40", "examples": 20, "store": tmp_path}
    run = measure(model, FEW, **options)
    before = files(run.path, "*.parquet")
    times = {path.name: path.stat().st_mtime_ns for path in run.path.glob("*-0*.parquet")}
    again = measure(model, FEW, **options)
    assert again.id == run.id
    assert files(run.path, "*.parquet") == before
    assert {path.name: path.stat().st_mtime_ns for path in run.path.glob("*-0*.parquet")} == times
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [run.id]


def test_more_probes_join_the_same_run_and_old_parts_stay(model, tmp_path):
    options = {"data": "random:length=40", "examples": 20, "store": tmp_path / "a"}
    first = measure(model, "entropy", **options)
    before = files(first.path, "*-0*.parquet")
    second = measure(model, "entropy,effective_keys,mean_distance", **options)
    assert second.id == first.id
    after = files(second.path, "*-0*.parquet")
    assert {name: after[name] for name in before} == before
    assert sorted(second.header["probes"]) == ["effective_keys", "entropy", "mean_distance"]
    assert second.status == "done"
    at_once = measure(model, "entropy,effective_keys,mean_distance", **{**options, "store": tmp_path / "b"})
    assert at_once.id == second.id
    same_rows(second, at_once)
    pd.testing.assert_frame_equal(second.heads(), at_once.heads())


CHILD = """
import sys, time, torch
torch.set_num_threads(1)
from headatlas.kernels import dispatch
from headatlas.kernels.streaming import streaming_stats
from headatlas.probes import measure as measuring
from headatlas.probes.loading import load
real = measuring.observe
measuring.observe = lambda *given, **options: (time.sleep(0.2), real(*given, **options))[1]
measuring.measure(load(sys.argv[1]), "sinks,patterns,group_mass", "repeats:length=66", examples=192, store=sys.argv[2])
"""


def test_killed_in_the_middle_and_run_again_loses_and_doubles_nothing(tmp_path):
    """SIGKILL while parts are being written; the rest comes with the same command, bit for bit."""
    folder = save(tmp_path / "model")
    store = tmp_path / "runs"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(store)], env=environment) as child:
        deadline = time.monotonic() + 90
        while len(list(store.glob("*/rows-*.parquet"))) < 3 and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    stopped = open_store(store).run()
    written = files(stopped.path, "rows-*.parquet")
    assert 3 <= len(written) < 12
    assert stopped.status == "interrupted"
    assert len(rows_of(stopped)) > 0
    loaded = load(folder)
    options = {"probes": "sinks,patterns,group_mass", "data": "repeats:length=66", "examples": 192}
    run = measure(loaded, store=store, **options)
    undisturbed = measure(loaded, store=tmp_path / "other", **options)
    assert run.id == undisturbed.id == stopped.id
    assert run.status == "done"
    assert len(run.missing()) == 0
    after = files(run.path, "rows-*.parquet")
    assert {name: after[name] for name in written} == written
    same_rows(run, undisturbed)
    assert set(files(run.path)) == set(files(undisturbed.path))
    pd.testing.assert_frame_equal(run.positions(), undisturbed.positions())


def test_stopped_between_the_parts_of_a_chunk(model, tmp_path):
    """Positions and maps of a chunk are there and its rows are not: the rows come, and nothing comes twice."""
    options = {"data": "random:length=70", "examples": 20}
    whole = measure(model, "entropy,mean_distance", store=tmp_path / "whole", **options)
    run = measure(model, "entropy", store=tmp_path / "cut", **options)
    (run.path / next(name for name in run.parts() if "00000" in name)).unlink()
    assert run.missing().to_dict("records") == [{"probe": "entropy", "chunk": 0}]
    again = measure(model, "entropy,mean_distance", store=tmp_path / "cut", **options)
    assert again.status == "done"
    same_rows(again, whole)
    keys = ["example", "probe", "part", "layer", "head"]
    for one in (again, whole):
        positions = one.positions()
        assert not positions.duplicated(keys).any()
        assert len(positions) == 8 * 2 * LAYERS * HEADS
        assert len(one.maps()) == 8 * LAYERS * HEADS * 2


def test_whatever_changes_a_number_is_another_run(tmp_path):
    from ..data.tokenizers_offline import word_level

    tokenizer = word_level()
    plain = tiny(tokenizer=tokenizer)
    half = tiny_network().to(torch.bfloat16)
    options = {"probes": "entropy", "data": "random:length=12", "examples": 2, "store": tmp_path}
    runs = {
        "plain": measure(plain, **options),
        "seed": measure(plain, **options, seed=1),
        "bos": measure(plain, **options, bos="none"),
        "dtype": measure(load((half, tokenizer)), **options),
        "weights": measure(tiny(tokenizer=tokenizer, seed=1), **options),
        "tokenizer": measure(tiny(), **options),
        "data": measure(plain, **{**options, "data": "random:length=13"}),
    }
    assert len({run.id for run in runs.values()}) == 7
    assert measure(plain, **options, batch_tokens=12).id == runs["plain"].id
    assert measure(plain, **{**options, "probes": "mean_distance"}).id == runs["plain"].id


def test_a_probe_without_its_labels_is_skipped_with_the_reason_and_refused_by_name(model, tmp_path):
    options = {"data": "random:length=40", "examples": 2}
    run = measure(model, "all", store=tmp_path / "all", **options)
    reason = "needs tokens labelled repeat; data set 'random' has no labels (its own data set is 'repeats')"
    assert run.header["skipped"]["induction"] == reason
    left_out = {name for name, one in all_probes().items() if one.groups or one.shortest > 40}
    assert set(run.header["skipped"]) == left_out >= {"induction", "retrieval", "active_dormant"}
    assert "induction" not in run.header["probes"]
    family = measure(model, "patterns", store=tmp_path / "family", **options)
    assert sorted(family.header["probes"]) == ["duplicate_token", "previous_token"]
    with pytest.raises(
        UserError, match=r"induction: needs tokens labelled repeat; .* \(its own data set is 'repeats'\)"
    ):
        measure(model, "entropy,induction", store=tmp_path / "named", **options)
    assert not (tmp_path / "named").exists()


def test_without_data_each_probe_is_measured_where_it_belongs(tmp_path):
    from ..data.tokenizers_offline import byte_bpe

    tokenizer = byte_bpe()
    model = tiny(tokenizer=tokenizer, vocab_size=len(tokenizer))
    runs = measure(model, "entropy,induction", examples=2, store=tmp_path)
    assert [run.header["data"]["name"] for run in runs] == ["text", "repeats"]
    assert [sorted(run.header["probes"]) for run in runs] == [["entropy"], ["entropy", "induction"]]


def test_positions_average_to_the_row_and_end_with_the_example(model, tmp_path):
    data = write_ids(tmp_path / "mixed.jsonl", 70, 30, 66, 9)
    run = measure(model, "all", data, store=tmp_path / "runs", keep_positions=3)
    positions = run.positions()
    assert sorted(positions["example"].unique()) == [0, 1, 2]
    token_by_token = {name for name, one in all_probes().items() if one.per != "example"} & set(run.header["probes"])
    assert set(positions["probe"]) == token_by_token
    axes = positions.drop_duplicates("probe").set_index("probe")["axis"]
    assert (axes["entropy"], axes["later_sink"]) == ("query", "key")
    assert [len(values) for values in positions[positions["example"] == 1]["values"]][:1] == [30]
    rows = rows_of(run).set_index(["example", "probe", "part", "layer", "head"])["value"]
    for line in positions.itertuples():
        assert len(line.values) == (70, 30, 66)[line.example]
        value = rows.get((line.example, line.probe, line.part, line.layer, line.head), math.nan)
        values = np.asarray(line.values, dtype=np.float64)
        together = {"mean": np.nanmean, "sum": np.nansum, "max": np.nanmax}[all_probes()[line.probe].together]
        if np.isnan(values).all():
            assert math.isnan(value)
        else:
            assert together(values) == pytest.approx(value, rel=2e-6, abs=1e-7)


def test_rows_of_a_mean_pooled_map_sum_to_one(model, tmp_path):
    data = write_ids(tmp_path / "mixed.jsonl", 150, 70)
    run = measure(model, "entropy", data, store=tmp_path / "runs", keep_positions=2)
    maps = run.maps()
    assert len(maps) == 2 * LAYERS * HEADS * 2
    for line in maps.itertuples():
        grid = np.asarray(line.values).reshape(line.rows, line.cols)
        if line.kind == "mean":
            assert grid.shape[0] == -(-(150, 70)[line.example] // 64)
            np.testing.assert_allclose(grid.sum(1), 1, atol=1e-5)
            assert not np.triu(grid, 1).any()
        else:
            assert grid.max() <= 1 + 1e-6
            assert grid[0, 0] == pytest.approx(1)


def test_strata_are_lengths(model, tmp_path):
    run = measure(model, "entropy", "random:length=20+40", examples=6, store=tmp_path)
    heads = run.heads("entropy")
    assert sorted(heads["stratum"].unique()) == ["length=20", "length=40"]
    rows, lengths = rows_of(run), run.examples().set_index("example")["c_length"]
    for line in heads.itertuples():
        members = lengths.index[lengths == int(line.stratum.removeprefix("length="))]
        here = rows[rows["example"].isin(members) & (rows["layer"] == line.layer) & (rows["head"] == line.head)]
        assert line.n == len(here) == 3
        assert line.mean == pytest.approx(here["value"].mean(), rel=1e-6)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma2"])
def test_padded_batches_equal_unpadded(kind, tmp_path):
    """Mixed lengths together and one by one: the same rows, NaN where NaN."""
    window = {} if kind == "Llama" else {"sliding_window": 8}
    model = tiny(kind, **window)
    data = write_ids(tmp_path / "mixed.jsonl", 70, 30, 66, 9, 100)
    together = measure(model, "all", data, store=tmp_path / "together", batch_tokens=10**6)
    alone = measure(model, "all", data, store=tmp_path / "alone", batch_tokens=1)
    assert together.header["data"]["groups"] == []
    same_rows(together, alone, check_exact=False, rtol=1e-5, atol=1e-6)
    assert set(rows_of(together).query("probe == 'group_mass'")["part"]) == {"rest"}


def test_a_probe_of_ones_own_from_a_file(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from headatlas.probes.probe import probe\n\n\n"
        "@probe(needs={'max_weight'}, title='Top', formula='mean_i max_j p_ij', unit='mass', bounds=(0, 1),\n"
        "       higher='one key takes all', caveat='says not which', source='here')\n"
        "def top(stats):\n    '''Largest weight.'''\n    return stats['max_weight']\n"
    )
    run = measure(model, ["./mine.py:top", "entropy"], "random:length=30", examples=3, store="runs")
    assert run.header["probes"]["top"]["family"] == "headatlas_user_mine"
    plan = make_plan(model, [all_probes()["entropy"]], "random:length=30", examples=3)
    stats = observe(model, plan.encode(plan.data.examples), {"max_weight"})
    expected = torch.stack([one["max_weight"].mean(2) for one in stats])  # [layer, batch, head]
    found = run.rows("top").sort_values(["layer", "example", "head"])["value"].to_numpy()
    np.testing.assert_allclose(found, expected.ravel().numpy(), rtol=1e-6)
    code = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(code.replace("return stats['max_weight']", "return 2 * stats['max_weight']"))
    edited = measure(model, ["./mine.py:top", "entropy"], "random:length=30", examples=3, store="runs")
    assert edited.id != run.id, "other code is another measurement"
    twice = edited.rows("top").sort_values(["layer", "example", "head"])["value"].to_numpy()
    np.testing.assert_allclose(twice, 2 * found, rtol=1e-6)
    (tmp_path / "mine.py").write_text(
        code.replace("return stats['max_weight']", "return stats['max_weight'] / nothing")
    )
    with pytest.raises(ProbeError, match=r"probe 'top', layer 0: mine.py, line 8, fails: NameError: name 'nothing'"):
        measure(model, "./mine.py:top", "random:length=30", examples=3, store="runs")
    (tmp_path / "mine.py").write_text(code.replace("def top", "def entropy"))
    with pytest.raises(UserError, match="headatlas has a probe called entropy; give yours another name"):
        measure(model, "./mine.py:entropy", "random:length=30", examples=3, store="runs")


def test_what_can_not_be_measured_is_refused_before_anything_is_written(model, tmp_path):
    from ..data.tokenizers_offline import word_level

    long = write_ids(tmp_path / "long.jsonl", 20, 161)
    foreign = tmp_path / "foreign.jsonl"
    write_examples(foreign, [Example(id="a", token_ids=(5, 6)), Example(id="b", token_ids=(5, 99))])
    words = tmp_path / "words.jsonl"
    write_examples(words, [Example(id="a", text="the sky")])
    store = tmp_path / "runs"
    for data, message in [
        ("repeats:length=161", r"example 'repeats-0' has 161 tokens; the limit is 160"),
        (long, r"example 'e1' has 161 tokens; the limit is 160"),
        (str(foreign), r"example 'b' has token id 99; .* knows 0 to 98"),
        (str(words), r"example 'a' is text, which needs a tokenizer"),
        ("text", "needs a tokenizer"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            measure(model, "entropy", data, examples=2, store=store)
        assert caught.value.exit_code == 2
    small = tiny(tokenizer=word_level(), vocab_size=12)
    with pytest.raises(UserError, match=r"example 'a' has token id 13; .* knows 0 to 11"):
        measure(small, "entropy", str(words), store=store)
    assert not store.exists()


@pytest.mark.parametrize(("name", "what"), [
    ("t5", "decoder_input_ids"), ("whisper", "input_features, decoder_input_ids"), ("clip", "pixel_values"),
])  # fmt: skip
def test_a_model_that_takes_more_than_text_is_refused(name, what, tmp_path):
    """Otherwise a decoder would read its encoder's padding as text, and every number would depend on the batch."""
    model = load((ARCHITECTURES[name].build(), None))
    message = rf"takes {what} beside token ids: `measure` takes models of text alone; use ha\.batch and ha\.observe"
    with pytest.raises(UserError, match=message):
        measure(model, "entropy", "random:length=20", examples=2, store=tmp_path / "runs")
    vision = load((ARCHITECTURES["vit"].build(), None))
    with pytest.raises(UserError, match="has no vocabulary"):
        measure(vision, "entropy", "random:length=20", examples=2, store=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["bert", "albert", "bloom", "mpt", "falcon sdpa", "gpt_oss", "opt", "llava"])
def test_other_architectures_padded_and_alone(name, tmp_path):
    model = load((ARCHITECTURES[name].build(), None))
    data = write_ids(tmp_path / "mixed.jsonl", 40, 30, 36, 9)
    together = measure(model, "all", data, store=tmp_path / "together", batch_tokens=10**6)
    alone = measure(model, "all", data, store=tmp_path / "alone", batch_tokens=1)
    same_rows(together, alone, check_exact=False, rtol=1e-4, atol=1e-5)


def test_an_unchecked_model_is_still_known_to_be_causal(tmp_path):
    unchecked = load((tiny_network(), None), check=False)
    run = measure(unchecked, "sink_rate", "random:length=70", examples=2, store=tmp_path)
    assert len(run.rows("sink_rate")) == 2 * LAYERS * HEADS


def test_a_failure_in_the_middle_is_recorded_and_resumed(model, tmp_path, monkeypatch):
    real, calls = measuring.observe, []

    def breaks(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return real(*arguments, **options)

    monkeypatch.setattr(measuring, "observe", breaks)
    options = {"probes": FEW, "data": "random:length=20", "examples": 64}
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(model, store=tmp_path / "a", **options)
    stopped = open_store(tmp_path / "a").run()
    assert stopped.status == "failed"
    assert stopped.header["error"] == "RuntimeError: out of memory"
    assert sorted(stopped.missing()["chunk"].unique()) == [2, 3]
    assert len(rows_of(stopped)) == 32 * 3 * LAYERS * HEADS
    monkeypatch.setattr(measuring, "observe", real)
    same_rows(measure(model, store=tmp_path / "a", **options), measure(model, store=tmp_path / "b", **options))


def test_a_long_run_is_compiled_and_says_so(model, tmp_path, monkeypatch):
    ran = []
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "LONG", 0)
    monkeypatch.setattr(dispatch.compiled, "obstacle", lambda device: None)
    monkeypatch.setitem(dispatch.BACKENDS, "compiled", lambda *call: ran.append(1) or streaming_stats(*call))
    long = measure(model, "entropy", "random:length=20", examples=3, store=tmp_path / "a")
    assert long.header["backend"] == "interface/compiled" and len(ran) >= LAYERS
    monkeypatch.setattr(dispatch, "LONG", 1e6)
    short = measure(model, "entropy", "random:length=20", examples=3, store=tmp_path / "b")
    assert short.header["backend"] == "interface/streaming" and short.id == long.id
    same_rows(long, short)


def test_the_header_says_what_was_measured(model, tmp_path):
    run = measure(model, "entropy", "random:length=20", examples=3, store=tmp_path, keep_positions=2)
    header = json.loads((run.path / "run.json").read_text())
    assert header["backend"] == "interface/streaming"
    assert header["model"]["digest"] == model.digest
    assert (header["model"]["layers"], header["model"]["heads"], header["model"]["kv_heads"]) == (LAYERS, HEADS, 2)
    assert (header["seed"], header["bos"], header["dtype"], header["keep_positions"]) == (0, "default", "float32", 2)
    assert header["probes"]["entropy"]["version"] == 1
    examples = run.examples()
    assert examples["tokens"].tolist() == [20, 20, 20]
    assert [None if ids is None else len(ids) for ids in examples["token_ids"]] == [20, 20, None]
