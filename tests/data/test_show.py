"""`headatlas show` of runs with many strata: one screen by default, everything when asked, json and csv complete."""

import json

import numpy as np
import pytest
from headatlas.data import show_verbs
from headatlas.data.show_verbs import shown_strata
from headatlas.data.store import open_store

from .stores import chunk_rows, examples_frame, header
from .test_verbs import call


@pytest.fixture
def store(tmp_path):
    """40 prompts of 2 lengths and 5 depths: 12 strata."""
    made = header(examples=40, probes=("entropy",))
    made["data"]["strata"] = ["length", "depth"]
    examples = examples_frame(40, c_length=np.repeat([64, 128], 20), c_depth=np.tile([0, 0.25, 0.5, 0.75, 1], 8))
    store = open_store(tmp_path / "runs", create=True)
    with store.writer(made) as writer:
        writer.write_examples(examples)
        for chunk in range(10):
            writer.write_rows(chunk, chunk_rows(chunk, "entropy", examples=40), ["entropy"])
    return store


def test_of_many_strata_the_lengths_are_shown_and_how_to_see_the_rest(store, capsys):
    assert call("show", "--store", store.path) == 0
    out = capsys.readouterr().out
    assert "length=64 " in out and "length=128 " in out and ";depth" not in out.split("2 of 12")[0]
    assert "2 of 12 strata shown; --strata shows all, --stratum 'length=64;depth=0' one" in out


def test_all_strata_are_shown_when_asked(store, capsys):
    assert call("show", "--store", store.path, "--strata") == 0
    out = capsys.readouterr().out
    assert out.count(";depth=") == 10 * 3 and "strata shown" not in out
    assert call("show", "--store", store.path, "--stratum", "length=128;depth=1") == 0
    assert capsys.readouterr().out.count("length=128;depth=1") == 3
    with pytest.raises(SystemExit):
        call("show", "--store", store.path, "--strata", "--stratum", "length=128")


def test_json_and_csv_have_every_stratum(store, capsys):
    assert call("show", "--store", store.path, "--format", "json") == 0
    assert len({row["stratum"] for row in json.loads(capsys.readouterr().out)}) == 12
    assert call("show", "--store", store.path, "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 12 * 3


def test_what_does_not_fit_a_terminal_is_a_line_a_reading(store, capsys, monkeypatch):
    monkeypatch.setattr(show_verbs, "screen_lines", lambda: 18)
    assert call("show", "--store", store.path) == 0
    out = capsys.readouterr().out
    assert "highest" in out and len(out.splitlines()) <= 18
    assert "L1H2 129.5, L1H1 119.5, L1H0 109.5" in out, "means of examples 20 to 39"


def test_few_strata_are_all_shown():
    assert shown_strata(["length=64", "length=64;depth=0", "length=64;depth=1"])[1:] == [
        "length=64;depth=0",
        "length=64;depth=1",
    ]
    assert shown_strata([f"length={2**power}" for power in range(5, 12)]) == ["length=32", "length=2048"]
    assert shown_strata([f"a={one};b=0" for one in range(4)]) == ["a=0;b=0", "a=3;b=0"]
