"""Published tables run end to end on small models, and their arithmetic on numbers at hand."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from headatlas.__main__ import main
from headatlas.data.errors import UserError
from headatlas.data.heads import HEAD_NAME
from headatlas.probes import reproduce as room
from headatlas.probes import table as tables
from headatlas.probes.loading import load
from headatlas.probes.reproduce import reproduce
from headatlas.probes.reproductions import duo_gates
from headatlas.probes.reproductions.massive_activations import FIRST, first_layer
from headatlas.probes.reproductions.streaming_perplexity import halved
from headatlas.probes.table import Setting, Table, all_tables, find_table, grid, number_of, of_head, percent_of


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


@pytest.fixture
def few_steps(monkeypatch):
    """Gates in two steps: the table's own 2,000 take minutes."""
    trained = duo_gates.gates
    monkeypatch.setattr(
        duo_gates, "gates",
        lambda model, data, *, settings, **options: trained(
            model, data, settings=dataclasses.replace(settings, steps=2), **options
        ),
    )  # fmt: skip


@pytest.mark.parametrize("name", all_tables())
def test_every_table_runs_on_an_organism_as_it_says(name, tmp_path, capsys, few_steps):
    table = find_table(name)
    words = table.on_organism.split()[1:]
    assert words[:3] == ["reproduce", name, "organism:pico-lm"]
    assert main([*words, "--examples", "5", "--store", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["quantity"] for row in rows} == {name for one in table.settings for name in one.names}
    assert all(row["paper"] is None and row["difference"] is None for row in rows)
    assert all(row["ours"] is not None for row in rows if row["quantity"] != FIRST)
    assert {row["paper_data"] for row in rows} == {one.paper_data for one in table.settings}


@pytest.mark.parametrize("name", all_tables())
def test_what_is_published_is_what_is_measured(name):
    table = find_table(name)
    for model, values in table.published.items():
        assert model == model.lower()
        heads = {one for one in values if HEAD_NAME.fullmatch(one)}
        assert set(values) - heads <= {name for one in table.settings for name in one.names}
        assert not heads or any(one.heads for one in table.settings)
    named = {one.split("/")[-1].lower() for one in table.models}
    assert named <= set(table.published)
    assert table.unlike
    assert table.source


class Invented:
    """A run of six prompts, two of one cluster: two heads and one whole layer."""

    id = "invented"

    def examples(self):
        return pd.DataFrame({"example": range(6), "cluster": ["a", "a", "b", "c", "d", "e"]})

    def rows(self, probe):
        lines = [
            (example, layer, head, value) for layer, head, values in PLACES for example, value in enumerate(values)
        ]
        frame = pd.DataFrame(lines, columns=["example", "layer", "head", "value"]).assign(part="")
        return frame.astype({"layer": "Int64", "head": "Int64"})


PLACES = (
    (0, 1, [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]),
    (2, 0, [0.9, 0.9, 0.9, 0.9, 0.9, 0.6]),
    (3, None, [0.2, 0.2, 0.2, 0.2, 0.2, 0.2]),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfInvented(Setting):
    def run(self, model, data, **options):
        return Invented()


@pytest.fixture
def invented(monkeypatch):
    setting = OfInvented(
        probe="made_up", data="nothing", paper_data="much", heads=True,
        quantities={"half": number_of(0.5), "tenth, %": percent_of(0.1), "highest": tables.largest},
        of_shares={"always": number_of(1.0)},
    )  # fmt: skip
    published = {"there-1b": {"half": 3, "highest": 0.8, "L2H0": 0.95, "L9H9": 0.5}}
    made = Table(name="made-up", title="", source="", settings=(setting,), published=published, unlike="", models=(),
                 on_organism="")  # fmt: skip
    monkeypatch.setattr(room, "find_table", lambda name: made)


def test_paper_ours_and_the_difference(pico, invented):
    rows = reproduce(dataclasses.replace(pico, name="someone/There-1B"), "made-up").set_index("quantity")
    assert list(rows.index) == ["half", "tenth, %", "highest", "L2H0", "L9H9", "always"]
    assert rows.loc["half", ["paper", "ours", "difference"]].tolist() == [3, 1, -2]
    assert rows.loc["tenth, %", "ours"] == pytest.approx(200 / 3)  # the layer's 0.2 counts, L0H1's 0.083 does not
    assert rows.loc["highest", ["ours", "difference"]].tolist() == pytest.approx([0.85, 0.05])
    assert rows.loc["L2H0", ["paper", "ours", "difference"]].tolist() == pytest.approx([0.95, 0.85, -0.10])
    assert math.isnan(rows.loc["L9H9", "ours"])
    assert rows.loc["always", "ours"] == 2
    assert math.isnan(rows.loc["always", "ci_low"])
    assert (rows["n"] == 5).all()
    assert rows.loc["highest", "ci_low"] < 0.85 < rows.loc["highest", "ci_high"]
    assert rows.loc["half", ["run", "data", "paper_data"]].tolist() == ["invented", "nothing", "much"]


def test_a_model_that_was_not_published_has_no_difference(pico, invented):
    rows = reproduce(pico, "made-up").set_index("quantity")
    assert list(rows.index) == ["half", "tenth, %", "highest", "always"]
    assert rows[["paper", "difference"]].isna().all(axis=None)


def test_rows_of_layers_and_of_the_model_are_places_too():
    values, places = grid(Invented().rows("made_up"))
    assert places == [(0, 1), (2, 0), (3, None)]
    assert values[5].tolist() == [0.5, 0.6, 0.2]
    scores = pd.DataFrame({"example": [0, 1], "layer": [None, None], "head": [None, None], "value": [2.0, 4.0]})
    values, places = grid(scores)
    assert (values.tolist(), places) == ([[2.0], [4.0]], [(None, None)])


def test_quantities():
    means, places = np.array([[0.0, 0.1, 0.6, 0.05], [0.0, 0.0, 0.0, 0.0]]), [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert percent_of(0.1)(means, places).tolist() == [50, 0]
    assert number_of(0.5)(means, places).tolist() == [1, 0]
    assert tables.percent_at_zero(means, places).tolist() == [25, 100]
    assert of_head("L1H0")(means, places).tolist() == [0.6, 0]
    assert tables.perplexity(np.log([[4.0]]), [(None, None)]).tolist() == pytest.approx([4])
    first = first_layer(np.array([[0, 1.0, 3.0], [0, 0.5, 0]]), [(0, None), (1, None), (2, None)])
    assert first[0] == 2
    assert math.isnan(first[1])


def test_the_sink_table_of_a_rotary_model_ends_at_zero(pico, tmp_path):
    table = reproduce(pico, "sink-table", examples=6, store=tmp_path).set_index("quantity")
    assert list(table.index) == ["Sink_1 natural, %", "Sink_1 random, %", "Sink_1 repeated, %"]
    assert table.loc["Sink_1 repeated, %", ["ours", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    assert table["paper"].isna().all()
    assert (table["n"] == 6).all()


def test_a_published_model_stands_beside_its_value(pico, tmp_path):
    named = dataclasses.replace(pico, name="somewhere/GPT2-XL")
    row = reproduce(named, "sink-table", examples=5, store=tmp_path).iloc[2]
    assert (row["paper"], row["difference"]) == (62.28, pytest.approx(-62.28))


def test_retrieval_heads_of_pico_lm(pico, tmp_path):
    options = {"examples": 10, "data": "secrets:lengths=128", "store": tmp_path}
    table = reproduce(pico, "retrieval-heads", **options).set_index("quantity")
    assert table.loc["heads of 0.5 and more", ["ours", "ci_low", "ci_high"]].tolist() == [8, 8, 8]
    assert table.loc["heads of 0.1 and more, %", "ours"] == pytest.approx(100 * 8 / 48)


def test_largest_activations_are_those_of_the_residual_stream(pico, tmp_path):
    table = reproduce(pico, "massive-activations", examples=5, data="text:length=64", store=tmp_path)
    from headatlas.data.store import open_store

    rows = open_store(tmp_path).run(table["run"][0]).rows("largest_activation")
    sizes = rows[rows["part"] == "size"].groupby("layer")["value"].mean()
    assert table["ours"][0] == pytest.approx(sizes.max())
    assert math.isnan(table["ours"][1])


def test_a_cache_is_scored_on_the_second_half_of_a_text(pico, tmp_path):
    from headatlas.probes.causal import prompts

    plan = prompts(pico, "text:length=64", examples=5, seed=0, bos="default")[0]
    cut = halved(plan)
    batch = cut.encode(cut.data.examples)
    assert batch.input_ids.tolist() == plan.encode(plan.data.examples).input_ids.tolist()
    assert batch.answering().sum(1).tolist() == [32] * 5
    options = {"examples": 5, "store": tmp_path}
    table = reproduce(pico, "streaming-perplexity", data="text:length=64", **options)
    from headatlas.data.store import open_store

    run = open_store(tmp_path).run(table["run"][2])
    assert run.header["edits"] == [[{"kind": "streaming", "sinks": 4, "recent": 29}]]
    assert table["ours"][2] == pytest.approx(np.exp(run.rows("answer_loss")["value"].mean()))
    with pytest.raises(UserError, match=r"expected texts of one length, .*has \d+ to \d+ tokens"):
        halved(prompts(pico, "secrets:lengths=128", examples=5, seed=0, bos="default")[0])


def test_refusals():
    with pytest.raises(UserError, match=r"unknown table 'sink-tabel'. Did you mean 'sink-table'"):
        find_table("sink-tabel")
    with pytest.raises(UserError, match="sink-table is measured on 3 data sets; --data can't replace them"):
        find_table("sink-table").data_of("text")
    assert find_table("massive-activations").data_of("text") == ["text", "text"]


def test_the_verb(tmp_path, capsys):
    assert main(["reproduce"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in all_tables())
    assert main(["reproduce", "sink-table"]) == 2
    assert "expected a model, such as gpt2-xl, mistralai/Mistral-7B-v0.1, " in capsys.readouterr().err
    assert main(["reproduce", "sink-table", "organism:pico-sink", "--examples", "5", "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "data: text:length=64; the paper: 100 natural texts, not public" in said
    assert "it has none of organism:pico-sink" in said
