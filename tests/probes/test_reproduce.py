"""Published tables run end to end on small models, and their arithmetic on numbers at hand."""

import json

import numpy as np
import pytest
from headatlas.data.errors import UserError
from headatlas.probes.loading import load
from headatlas.probes.reproduce import RECIPES, find_recipe, number_of, percent_of, reproduce


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


def test_the_sink_table_of_a_rotary_model_ends_at_zero(pico, tmp_path):
    table = reproduce(pico, "sink-table", examples=6, store=tmp_path).set_index("quantity")
    assert list(table.index) == ["Sink_1 natural, %", "Sink_1 random, %", "Sink_1 repeated, %"]
    assert table.loc["Sink_1 repeated, %", ["ours", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    assert table["paper"].isna().all() and (table["n"] == 6).all()


def test_retrieval_heads_of_pico_lm(pico, tmp_path):
    options = {"examples": 10, "data": "secrets:lengths=128", "store": tmp_path}
    table = reproduce(pico, "retrieval-heads", **options).set_index("quantity")
    assert table.loc["heads of 0.5 and more", ["ours", "ci_low", "ci_high"]].tolist() == [8, 8, 8]
    assert table.loc["heads of 0.1 and more, %", "ours"] == pytest.approx(100 * 8 / 48)
    with pytest.raises(UserError, match="sink-table is measured on 3 data sets; --data can't replace them"):
        reproduce(pico, "sink-table", data="text", store=tmp_path)


def test_a_published_model_stands_beside_its_value(pico, tmp_path, monkeypatch):
    import dataclasses

    named = dataclasses.replace(pico, name="somewhere/GPT2-XL")
    row = reproduce(named, "sink-table", examples=5, store=tmp_path).iloc[2]
    assert (row["paper"], row["difference"]) == (62.28, pytest.approx(-62.28))


def test_quantities_of_heads():
    means = np.array([[0.0, 0.1, 0.6, 0.05], [0.0, 0.0, 0.0, 0.0]])
    assert percent_of(0.1)(means).tolist() == [50, 0]
    assert number_of(0.5)(means).tolist() == [1, 0]
    for recipe in RECIPES.values():
        names = {name for setting in recipe.settings for name in setting.quantities}
        assert all(set(values) == names for values in recipe.published.values())
    with pytest.raises(UserError, match=r"unknown table 'sink-tabel'. Did you mean 'sink-table'"):
        find_recipe("sink-tabel")


def test_the_verb(tmp_path, capsys):
    from headatlas.__main__ import main

    assert main(["reproduce"]) == 0
    assert "retrieval-heads" in capsys.readouterr().out
    assert main(["reproduce", "sink-table"]) == 2
    assert "expected a model, such as gpt2-xl or organism:pico-lm" in capsys.readouterr().err
    words = ["reproduce", "sink-table", "organism:pico-sink", "--examples", "5", "--store", str(tmp_path), "--json"]
    assert main(words) == 0
    assert [row["ours"] for row in json.loads(capsys.readouterr().out)][2] == 0
