"""The command line: every verb teaches, every mistake is one line with the right exit code, nothing half-done is left."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from headatlas.__main__ import VERBS, main
from headatlas.data import atomic
from headatlas.data.store import open_store
from headatlas.probes import measure as measuring
from headatlas.probes.catalog import all_probes

from .data.tokenizers_offline import word_level
from .probes.tiny import HEADS, LAYERS, rows_of, save, tiny_network

TEXT = "the sky is blue the sky is red ."
FEW = ("--probes", "entropy,previous_token")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tiny llama of 160 tokens of context, and a tokenizer of words."""
    return str(save(tmp_path_factory.mktemp("model") / "tiny", tokenizer=word_level()))


@pytest.fixture
def run(capsys):
    """(exit code, stdout, stderr) of one command."""

    def call(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return call


def everything(folder):
    """path -> content or None of all that is below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_refused(result, *said, code=2):
    """One line on stderr that says it, nothing on stdout."""
    found, out, err = result
    assert found == code, err
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("headatlas: error: ")
    assert len(lines[0]) < 700
    for words in said:
        assert words in lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_teaches(verb, run):
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert f"usage: headatlas {verb}" in out
    examples = out.split("examples:")[1].splitlines()
    assert any(line.strip().startswith(f"headatlas {verb}") for line in examples)
    assert all(len(line) <= 120 for line in out.splitlines())


def test_the_overview_lists_every_verb_and_the_exit_codes(run):
    for words in ((), ("--help",)):
        code, out, _ = run(*words)
        assert code == 0
        for verb, facts in VERBS.items():
            assert f"  {verb:<10}{facts.help}" in out
        assert "0 done, 1 failed after starting, 2 refused before anything ran" in out
    assert run("--version")[1].startswith("headatlas 0.")
    assert run("--completion")[1].startswith('complete -W "probes data models measure')


def test_unknown_verb(run):
    assert_refused(run("mesure"), "unknown verb 'mesure'. Did you mean 'measure'? Expected one of probes, data")


def test_unknown_and_missing_arguments(run, tmp_path):
    help_is_there = "`headatlas measure --help` shows what it takes"
    assert_refused(run("measure", "m", "--exampels", "3"), "unrecognized arguments: --exampels 3", help_is_there)
    assert_refused(run("measure"), "the following arguments are required: MODEL", help_is_there)
    assert_refused(run("measure", "m", "--bos", "always"), "invalid choice: 'always'", help_is_there)
    assert_refused(run("--nope"), "unrecognized arguments: --nope")
    assert everything(tmp_path) == {}


def test_mistakes_are_refused_before_anything_is_written(model, run, tmp_path):
    empty, bad, foreign = tmp_path / "empty.jsonl", tmp_path / "bad.jsonl", tmp_path / "foreign.jsonl"
    empty.write_text("\n\n")
    bad.write_text('{"id": "a", "text": "the sky"}\n{"id": "b", "text": }\n')
    foreign.write_text('{"id": "a", "token_ids": [5, 1000]}\n')
    no_weights = tmp_path / "no_weights"
    tiny_network().config.save_pretrained(no_weights)
    bare = save(tmp_path / "bare")
    before = everything(tmp_path)
    cases = [
        ((model, "--probes", "sink_rat"), "unknown probe 'sink_rat'. Did you mean 'sink_rate'?"),
        ((model, "--probes", ""), "unknown probe ''"),
        ((model, "--probes", "./gone.py:mine"), "./gone.py does not exist"),
        (("nobody/no-such-model", *FEW), "model 'nobody/no-such-model': expected a hub id, a folder"),
        (("./no-such-folder", *FEW), "model './no-such-folder'"),
        (("no-such-model", *FEW), "model 'no-such-model'"),
        ((str(no_weights), *FEW), "no_weights", "weights"),
        (("organism:pico-ml", *FEW), "no organism is called 'pico-ml'"),
        ((str(bare), *FEW), "needs a tokenizer"),
        ((model, *FEW, "--dtype", "float33"), "dtype", "float33"),
        ((model, *FEW, "--device", "abacus"), "device", "abacus"),
        ((model, *FEW, "--data", "repeet"), "unknown data set 'repeet'. Did you mean 'repeats'?"),
        ((model, *FEW, "--data", "repeats:length=ten"), "expected a whole number; came 'ten'"),
        ((model, *FEW, "--data", "repeats:length=161"), "has 161 tokens", "160"),
        ((model, *FEW, "--data", str(empty)), "empty.jsonl holds no examples: expected one JSON object a line"),
        ((model, *FEW, "--data", str(bad)), "bad.jsonl, line 2: expected one JSON object"),
        ((model, *FEW, "--data", str(foreign)), "example 'a' has token id 1000"),
        ((model, *FEW, "--data", "gone.jsonl"), "gone.jsonl cannot be read"),
        ((model, *FEW, "--data", "random:length=20", "--examples", "0"), "examples"),
        ((model, *FEW, "--data", "random:length=20", "--examples", "-3"), "examples"),
        ((model, *FEW, "--data", "random:length=20", "--batch-tokens", "0"), "batch-tokens"),
        ((model, *FEW, "--data", "random:length=20", "--keep-positions", "-1"), "keep-positions"),
        ((model, "--probes", "entropy,induction", "--data", "random:length=20"), "induction: needs tokens labelled repeat"),
    ]  # fmt: skip
    for words, *said in cases:
        assert_refused(run("measure", *words), *said)
        assert everything(tmp_path) == before, words


def test_a_store_that_is_no_store_is_refused_before_the_model_is_loaded(model, run, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "thesis.tex").write_text("x")
    before = everything(tmp_path)
    for name, said in (("file", "expected a folder; came a file"), ("things", "it holds thesis.tex")):
        for source in (model, "nobody/no-such-model"):
            words = ("measure", source, *FEW, "--data", "random:length=20", "--store", name)
            assert_refused(run(*words), said, "--store")
    assert everything(tmp_path) == before


def test_show_refuses_what_is_not_there(model, run, tmp_path):
    assert_refused(run("show", "latest"), "there is no store at runs")
    assert run("measure", model, *FEW, "--data", "random:length=20", "--examples", "2")[0] == 0
    assert_refused(run("show", "gpt2"), "no run 'gpt2' in runs")
    assert_refused(run("show", "latest", "--probe", "entropi"), "Did you mean 'entropy'?")


def test_an_organism_that_is_not_there_has_no_certificate(run):
    assert_refused(run("models", "--certificate", "pico-ml"), "no organism is called 'pico-ml'")
    assert_refused(run("probes", "sink_rat"), "Did you mean 'sink_rate'?")


def test_a_probe_file_that_fails_is_one_line(model, run, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import os\nimport nothing_of_the_kind\n")
    refused = run("measure", model, "--probes", f"{broken}:x")
    assert_refused(refused, "broken.py, line 2, fails: ModuleNotFoundError: No module named 'nothing_of_the_kind'")


def test_an_unknown_backend(model, run, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADATLAS_BACKEND", "fast")
    refused = run("measure", model, *FEW, "--data", "random:length=20")
    assert_refused(refused, "HEADATLAS_BACKEND: expected one of streaming, compiled, reference, triton", "got 'fast'")
    assert everything(tmp_path) == {}


def test_bench_and_train_refuse_what_is_not_there(run, tmp_path):
    assert_refused(run("bench", "kernel"), "unknown table 'kernel'. Did you mean 'kernels'?")
    assert_refused(run("bench", "kernels", "--lengths", "12,abc"), "expected a whole number of 1 or more; came 'abc'")
    assert_refused(run("train", "pico-ml", "--out", tmp_path / "out"), "no recipe is called 'pico-ml'")
    assert everything(tmp_path) == {}


def test_measure_prints_runs_and_the_next_step(model, run, tmp_path):
    code, out, err = run("measure", model, *FEW, "--data", "random:length=20", "--examples", "20")
    assert code == 0
    found = open_store("runs").run()
    first, last = out.strip().splitlines()
    assert first == f"{found.id}  done  20 examples, 2 probes"
    assert last == f"Next: headatlas show {found.id} --store runs   or   headatlas serve --store runs"
    assert f"{model} on random:length=20: 2 probes, 20 examples, 400 tokens in about 1 forwards" in err
    assert len(rows_of(found)) == 20 * 2 * LAYERS * HEADS
    again = run("measure", model, *FEW, "--data", "random:length=20", "--examples", "20")
    assert f"{model} on random:length=20: all measured already, in {found.id}" in again[2]
    code, out, _ = run("show", found.id, "--probe", "entropy", "--format", "json")
    assert code == 0
    assert len(json.loads(out)) == LAYERS * HEADS


def test_baselines_are_measured_named_and_subtracted(model, run):
    words = ("measure", model, *FEW, "--data", "random:length=20", "--examples", "20", "--baselines")
    code, out, err = run(*words, "--dry-run")
    assert (code, out) == (0, "")
    kinds = ("", ", random weights", ", shuffled tokens")
    assert [f"on random:length=20{kind}: 2 probes" in err for kind in kinds] == [True] * 3
    code, out, err = run(*words)
    assert code == 0
    own, random, shuffled, last = out.strip().splitlines()
    found = open_store("runs").run()
    assert own == f"{found.id}  done  20 examples, 2 probes"
    assert random.startswith(f"{found.baseline('random').id}  done")
    assert shuffled.startswith(f"{found.baseline('shuffled').id}  done")
    assert last.startswith(f"Next: headatlas show {found.id} --store runs --against random   or")
    again = run(*words)[2]
    assert [f"on random:length=20{kind}: all measured already" in again for kind in kinds] == [True] * 3
    records = json.loads(run(*words, "--json")[1])
    assert [record["baseline"] for record in records] == [None, "random", "shuffled"]
    code, out, _ = run("show", "latest", "--against", "shuffled", "--probe", "entropy", "--format", "json")
    assert (code, len(json.loads(out))) == (0, LAYERS * HEADS)


def test_a_missing_baseline_is_refused_with_the_command(model, run, monkeypatch):
    words = ["measure", model, *FEW, "--data", "random:length=20", "--examples", "2"]
    monkeypatch.setattr(sys, "argv", ["headatlas", *words])
    assert run(*words)[0] == 0
    command = f"`headatlas {' '.join(words)} --baselines` measures it"
    assert_refused(run("show", "latest", "--against", "random"), "has no baseline 'random' (random weights)", command)
    assert_refused(run("show", "latest", "--against", "zeros"), "invalid choice: 'zeros'")


def test_json_is_json(model, run):
    words = ("measure", model, *FEW, "--data", "random:length=20", "--examples", "3", "--json")
    code, out, _ = run(*words)
    assert code == 0
    (record,) = json.loads(out)
    assert record["status"] == "done"
    assert open_store("runs").run(record["run"]).path.samefile(record["path"])
    code, out, _ = run("look", model, TEXT, *FEW, "--json")
    assert code == 0
    assert len(json.loads(out)) == 2 * LAYERS * HEADS
    assert {"probe", "layer", "head", "place", "value", "unit"} <= set(json.loads(out)[0])
    for verb, least in (("probes", len(all_probes())), ("data", 3), ("models", 0)):
        code, out, _ = run(verb, "--json")
        assert code == 0
        assert len(json.loads(out)) >= least
    names = [card["name"] for card in json.loads(run("probes", "--json")[1])]
    assert names.count("sink_rate") == 1


def test_dry_run_writes_nothing(model, run, tmp_path):
    before = everything(tmp_path)
    code, out, err = run("measure", model, "--data", "repeats:length=64", "--examples", "4", "--dry-run")
    assert (code, out) == (0, "")
    fitting = [one for one in all_probes().values() if set(one.groups) <= {"repeat"} and one.shortest <= 64]
    assert f"{len(fitting)} probes, 4 examples, 256 tokens" in err
    assert "GFLOP" in err
    assert "n x n maps would take" in err
    assert everything(tmp_path) == before


def test_skipped_probes_are_said(model, run):
    code, _, err = run("measure", model, "--data", "random:length=20", "--examples", "2")
    assert code == 0
    assert "skipped induction: needs tokens labelled repeat; data set 'random' has no labels" in err


def test_probes_prints_cards(run):
    code, out, _ = run("probes", "sink_rate")
    assert code == 0
    assert out.startswith("sink_rate@1  Sink rate")
    for word in ("formula", "unit", "does not show", "source", "1[alpha_1 > 0.3]", "Gu et al."):
        assert word in out
    code, out, _ = run("probes")
    assert code == 0
    assert "induction@1" in out


def test_look_reads_one_prompt_and_stores_nothing(model, run, tmp_path):
    before = everything(tmp_path)
    code, out, _ = run("look", model, TEXT, "--probes", "entropy,first_token_mass,group_mass", "--top", "2")
    assert code == 0
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert list(lines)[1:] == ["entropy", "first_token_mass", "group_mass rest", "group_mass bos"]
    values = json.loads(run("look", model, TEXT, "--probes", "entropy", "--json")[1])
    best = sorted(values, key=lambda record: -record["value"])[:2]
    for record in best:
        assert f"{record['place']} {record['value']:.3f}" in lines["entropy"]
    out = run("look", model, TEXT)[1]
    assert "left out induction: needs tokens labelled repeat; `headatlas measure --probes induction` reads it on" in out
    assert everything(tmp_path) == before


def test_look_refuses_in_one_line(model, run):
    assert_refused(run("look", model, "  "), "the prompt is empty")
    assert_refused(run("look", model, "the sky " * 100), "has 201 tokens; the limit is 160")
    assert_refused(run("look", model, TEXT, "--probes", "induction"), "labelled tokens")
    assert_refused(run("look", model, TEXT, "--probes", "sink_rate"), "sink_rate", "undefined")
    assert_refused(run("look", "nobody/no-such-model", TEXT), "nobody/no-such-model")


def test_look_needs_a_tokenizer(run, tmp_path):
    bare = save(tmp_path / "bare")
    assert_refused(run("look", bare, TEXT), "comes without a tokenizer")


@pytest.mark.parametrize("room_for_the_header", [True, False])
def test_full_disk_in_the_middle_keeps_what_was_written(room_for_the_header, model, run, monkeypatch):
    real, parts = atomic.write_file, []

    def full(path, fill):
        if path.name.startswith("rows-"):
            parts.append(path)
        if len(parts) >= 3 and not (room_for_the_header and path.name == "run.json"):
            real(path, lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        real(path, fill)

    monkeypatch.setattr(atomic, "write_file", full)
    words = ("measure", model, *FEW, "--data", "random:length=20", "--examples", "64")
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.strip().splitlines()[-1].startswith("headatlas: error: the disk is full: could not write ")
    assert "Everything written before is kept" in err
    assert "Traceback" not in err
    stopped = open_store("runs").run()
    assert stopped.status == ("failed" if room_for_the_header else "interrupted")
    if room_for_the_header:
        assert stopped.header["error"].startswith("StoreError: the disk is full")
    assert sorted(stopped.missing()["chunk"].unique()) == [2, 3]
    kept = rows_of(stopped)
    assert len(kept) == 32 * 2 * LAYERS * HEADS
    assert not list(stopped.path.glob("*.tmp"))
    assert run("show", "latest")[0] == 0
    monkeypatch.setattr(atomic, "write_file", real)
    assert run(*words)[0] == 0
    done = open_store("runs").run()
    assert (done.id, done.status, len(done.missing())) == (stopped.id, "done", 0)
    whole = rows_of(done)
    assert len(whole) == 64 * 2 * LAYERS * HEADS
    assert whole[whole["example"] < 32].reset_index(drop=True).equals(kept)


def test_stopped_by_hand_exits_130_and_goes_on_where_it_was(model, run, monkeypatch):
    real, calls = measuring.observe, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(measuring, "observe", interrupted)
    words = ("measure", model, *FEW, "--data", "random:length=20", "--examples", "48")
    code, out, err = run(*words)
    assert (code, out) == (130, "")
    assert err.strip().splitlines()[-1] == "headatlas: stopped; the same command goes on where it was"
    stopped = open_store("runs").run()
    assert stopped.status == "interrupted"
    assert sorted(stopped.missing()["chunk"].unique()) == [1, 2]
    calls.clear()
    monkeypatch.setattr(measuring, "observe", lambda *a, **o: (calls.append(1), real(*a, **o))[1])
    assert run(*words)[0] == 0
    assert len(calls) == 2
    assert open_store("runs").run().status == "done"


def test_a_closed_pipe_is_no_error(model):
    """`headatlas probes | head -1` ends quietly."""
    command = f"{sys.executable} -m headatlas probes --json | head -c 1"
    ended = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "[")


def test_a_checkpoint_of_another_shape_is_refused(run, tmp_path):
    """Weights that do not fit the config would be drawn at random: never measured silently."""
    folder = save(tmp_path / "model", network=tiny_network())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    before = everything(tmp_path)
    assert_refused(run("measure", folder, *FEW, "--data", "random:length=20"), "layers.2.", "missing")
    assert everything(tmp_path) == before


def test_half_precision_is_measured_and_said(model, run):
    words = ("measure", model, *FEW, "--data", "random:length=20", "--examples", "2", "--dtype", "bfloat16")
    assert run(*words)[0] == 0
    found = open_store("runs").run()
    assert found.header["dtype"] == "bfloat16"
    assert torch.tensor(rows_of(found)["value"].to_numpy()).isfinite().all()
