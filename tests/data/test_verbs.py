import argparse
import csv
import io
import json

import numpy as np
import pytest
from headatlas.data import verbs
from headatlas.data.errors import StoreError, UserError
from headatlas.data.store import open_store

from .stores import chunk_rows, examples_frame, fill, header


def parser_of(verb):
    parser = argparse.ArgumentParser(prog=f"headatlas {verb}")
    getattr(verbs, f"{verb}_arguments")(parser)
    return parser


def call(verb, *words):
    return getattr(verbs, f"{verb}_run")(parser_of(verb).parse_args([str(word) for word in words]))


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "runs", create=True)
    with store.writer(header()) as writer:
        fill(writer)
    return store


def test_data_lists_every_data_set(capsys):
    assert call("data") == 0
    out = capsys.readouterr().out
    for word in ("needle", "repeats", "copies=2", "depths=0+0.25+0.5+0.75+1", "Olsson"):
        assert word in out
    assert call("data", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert next(record for record in records if record["name"] == "repeats")["params"] == {"length": [128], "copies": 2}


def test_show_a_probe(store, capsys):
    assert call("show", "latest", "--store", store.path, "--probe", "entropy", "--top", 2) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["probe", "head", "stratum", "mean", "interval", "n", "reliability"]
    assert [line[1:4] for line in lines[1:]] == [["L1H2", "length=128", "124.5"], ["L1H1", "length=128", "114.5"]]


def test_show_as_json_and_csv(store, capsys):
    words = ("show", "tiny", "--store", store.path, "--probe", "entropy", "--stratum", "length=128", "--format")
    assert call(*words, "json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["head"] for record in records] == ["L1H2", "L1H1", "L1H0", "L0H2", "L0H1", "L0H0"]
    assert records[0]["mean"] == 124.5
    assert records[0]["ci_low"] < 124.5 < records[0]["ci_high"]
    assert (records[0]["n"], records[0]["reliability"]) == (10, pytest.approx(1.0))
    assert call(*words, "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["head"] for row in rows] == [record["head"] for record in records]
    assert float(rows[0]["mean"]) == 124.5


def test_show_a_run(store, capsys):
    assert call("show", "--store", store.path) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny-lm-repeats-aea73850: done\n  model    org/Tiny-LM, 2 layers of 3 heads, float32\n")
    assert out.count("L1H2") == out.count("L1H0") == 2
    assert "L0H2" not in out


def test_undefined_is_null_never_a_number(tmp_path, capsys):
    with open_store(tmp_path, create=True).writer(header(examples=3, probes=("sink",))) as writer:
        writer.write_examples(examples_frame(3))
        rows = chunk_rows(0, "sink", examples=3)
        rows["value"] = np.where(rows["head"] == 1, np.nan, rows["value"])
        writer.write_rows(0, rows, ["sink"])
    assert call("show", "--store", tmp_path, "--probe", "sink", "--format", "json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["head"] for record in records] == ["L1H2", "L1H0", "L0H2", "L0H0"]
    assert {(record["ci_low"], record["reliability"]) for record in records} == {(None, None)}
    assert call("show", "--store", tmp_path, "--probe", "sink") == 0
    assert " - " in capsys.readouterr().out


def test_user_errors_exit_with_2_and_damage_with_1(store):
    for words, message in [
        (("show", "nope"), "no run 'nope'"),
        (("show", "--probe", "entropi"), "Did you mean 'entropy'"),
        (("show", "--stratum", "length=12"), r"has no stratum 'length=12'\. Did you mean 'length=128'\?"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            call(*words, "--store", store.path)
        assert caught.value.exit_code == 2
    part = next(store.path.glob("*/rows-*.parquet"))
    part.write_bytes(b"")
    with pytest.raises(StoreError, match=part.name) as caught:
        call("show", "--store", store.path)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("verb", ["data", "show"])
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        parser_of(verb).parse_args(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"headatlas {verb}" in out
    for line in out.splitlines():
        assert len(line) <= 120


def test_top_must_be_a_count(capsys):
    with pytest.raises(SystemExit):
        parser_of("show").parse_args(["--top", "0"])
    assert "expected a whole number of 1 or more; came '0'" in capsys.readouterr().err
