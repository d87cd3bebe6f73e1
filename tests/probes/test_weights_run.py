"""Readings of weights as a run: one pseudo example, no interval, the same store, verbs and pages as everything else."""

import json
import os

import numpy as np
import pytest
import torch
from headatlas.__main__ import main
from headatlas.dashboards import figures
from headatlas.dashboards.app import make_app
from headatlas.dashboards.chosen import measures
from headatlas.dashboards.evidence import sentence, values_of
from headatlas.dashboards.pages import atlas, head
from headatlas.dashboards.reading import row_in
from headatlas.dashboards.readings import read
from headatlas.dashboards.state import headline
from headatlas.dashboards.wording import hover, summary
from headatlas.data.errors import UserError
from headatlas.data.store import open_store
from headatlas.probes.catalog import all_probes, all_readings
from headatlas.probes.folding import head_weights
from headatlas.probes.loading import load
from headatlas.probes.measure import measure

from ..data.tokenizers_offline import word_level
from .architectures import ARCHITECTURES
from .tiny import files, save, tiny, tiny_network


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    (made,) = measure(model, "copying_score,composition", store=tmp_path_factory.mktemp("weights"))
    return made


def test_rows_are_the_readings_of_one_pseudo_example(model, run):
    assert run.header["data"] | {"digest": ""} == {
        "name": "weights", "spec": "weights", "digest": "", "strata": [], "groups": [], "examples": 1,
    }  # fmt: skip
    assert run.examples()[["id", "dataset", "tokens"]].to_numpy().tolist() == [["weights", "weights", 0]]
    weights, readings = head_weights(model), all_readings()
    for name in ("copying_score", "composition"):
        values = readings[name].measure(weights)
        for index, part in enumerate(readings[name].parts or ("",)):
            rows = run.rows(name)
            here = rows[rows["part"] == part].sort_values(["layer", "head"])
            np.testing.assert_array_equal(here["value"].to_numpy(), values[..., index].flatten().numpy())
            assert here["layer"].tolist() == [0] * 4 + [1] * 4
            assert set(here["n_queries"]) == {0}


def test_a_value_has_n_1_and_no_interval(run):
    heads = run.heads("copying_score")
    assert len(heads) == 8
    assert set(heads["n"]) == set(heads["n_examples"]) == {1}
    assert heads[["ci_low", "ci_high", "reliability"]].isna().all().all()
    assert set(heads["stratum"]) == {"weights"}
    composition = run.heads("composition", part="k")
    assert composition["mean"].isna().tolist() == [True] * 4 + [False] * 4  # the first layer has nothing before it
    assert composition["n"].tolist() == [0] * 4 + [1] * 4


def test_edges_hold_every_pair_and_keep_the_strongest(run):
    edges = run.edges()
    assert len(edges) == 3 * 4 * 4
    assert edges["kept"].sum() == 3 * 4
    assert set(edges["method"]) == {"composition"}
    heads = run.heads("composition")
    for edge in edges[edges["kept"]].itertuples():
        assert edge.source.startswith("a0.h") and edge.target.startswith("a1.h")
        place, _, kind = edge.target.removesuffix(">").partition("<")
        here = heads[(heads["part"] == kind) & (heads["layer"] == 1) & (heads["head"] == int(place[-1]))]
        assert here["mean"].item() == pytest.approx(edge.score)


def test_more_readings_join_the_run_and_the_same_command_writes_nothing(model, tmp_path):
    (first,) = measure(model, "copying_score", store=tmp_path)
    before = files(first.path, "rows-*")
    again = measure(model, "copying_score", "weights", store=tmp_path, seed=5, examples=99, bos="default")
    assert again.id == first.id
    assert files(again.path, "rows-*") == before
    more = measure(model, "all", "weights", store=tmp_path)
    assert more.id == first.id
    assert set(more.header["probes"]) == set(all_readings())
    assert files(more.path, "rows-*").items() >= before.items()
    assert more.header["skipped"]["entropy"] == "needs prompts; `weights` has none"


def test_all_is_every_probe_on_its_data_and_the_weights_in_a_run_of_their_own(model, tmp_path):
    runs = measure(model, ["duplicate_token", "ov_norm", "copying_score"], store=tmp_path, examples=2)
    assert [made.header["data"]["name"] for made in runs] == ["repeats", "weights"]
    assert list(runs[1].header["probes"]) == ["ov_norm", "copying_score"]
    assert "copying_score" not in runs[0].header["probes"] and "copying_score" not in runs[0].header["skipped"]


def test_other_weights_are_another_run(model, run, tmp_path):
    (other,) = measure(tiny(seed=1), "copying_score", store=tmp_path)
    (same,) = measure(load((tiny_network(), None)), "copying_score", store=tmp_path)
    assert same.id == run.id != other.id


def test_a_reading_is_refused_where_there_are_prompts_and_a_probe_where_there_are_none(model, tmp_path):
    with pytest.raises(UserError, match=r"copying_score: reads the weights alone, no prompts"):
        measure(model, "copying_score", "random:length=20", store=tmp_path, examples=2)
    with pytest.raises(UserError, match=r"copying_score: reads the weights alone, no prompts"):
        measure(model, "entropy,copying_score", "random:length=20", store=tmp_path, examples=2)
    with pytest.raises(UserError, match=r"entropy: needs prompts; `weights` has none"):
        measure(model, "entropy,copying_score", "weights", store=tmp_path)
    made = measure(model, "all", "random:length=20", store=tmp_path, examples=2)
    assert not set(made.header["probes"]) & set(all_readings())
    assert not set(made.header["skipped"]) & set(all_readings())


def test_a_model_whose_weights_cannot_be_read_is_measured_without_them(tmp_path):
    model = tiny("Olmo2")
    (run,) = measure(model, ["duplicate_token", "weights"], store=tmp_path, examples=2)
    assert set(run.header["probes"]) == {"duplicate_token"}
    assert set(run.header["skipped"]) == {"copying_score", "matching_score", "ov_norm", "qk_norm"}
    assert "its attention has no norm before it" in run.header["skipped"]["ov_norm"]
    with pytest.raises(UserError, match=r"Olmo2ForCausalLM.*its attention has no norm before it"):
        measure(model, "copying_score", store=tmp_path)


def test_readings_that_a_model_does_not_allow_are_skipped_with_the_reason(tmp_path):
    model = load((ARCHITECTURES["qwen3"].build(), None))
    (run,) = measure(model, "weights", store=tmp_path)
    assert set(run.header["probes"]) == {"copying_score", "matching_score", "ov_norm"}
    assert "which model.layers.0.self_attn.k_norm rescales token by token" in run.header["skipped"]["qk_norm"]
    with pytest.raises(UserError, match=r"qk_norm: is about the size of w_k"):
        measure(model, "copying_score,qk_norm", store=tmp_path)


def command(capsys, *words):
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_the_verbs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "tiny", tokenizer=word_level())
    code, out, err = command(capsys, "measure", folder, "--probes", "copying_score,composition", "--dry-run")
    assert (code, out) == (0, "") and "its weights alone: 2 readings, no prompts" in err
    assert not (tmp_path / "runs").exists()
    code, out, err = command(capsys, "measure", folder, "--probes", "copying_score,composition")
    assert code == 0 and "done  from the weights, 2 readings" in out
    code, out, _ = command(capsys, "show", "latest")
    assert code == 0 and "the weights alone, no prompts" in out and "copying_score" in out
    assert "all measured already" in command(capsys, "measure", folder, "--probes", "copying_score")[2]
    records = json.loads(command(capsys, "show", "latest", "--probe", "copying_score", "--format", "json")[1])
    assert len(records) == 8 and {record["ci_low"] for record in records} == {None}
    code, out, _ = command(capsys, "probes", "copying_score")
    assert code == 0 and "none: the weights alone, no prompts" in out and "tied embeddings" in out
    assert "copying_score@1" in command(capsys, "probes")[1]
    code, out, _ = command(capsys, "look", folder, "the sky is blue", "--probes", "entropy,copying_score,ov_norm")
    assert code == 0 and out.rstrip().endswith(
        "left out copying_score, ov_norm: of the weights alone, or by forwards of their own"
    )
    code, out, err = command(capsys, "look", folder, "the sky", "--probes", "copying_score")
    assert (code, out) == (2, "")
    assert "left out copying_score: of the weights alone, or by forwards of their own; `headatlas measure MODEL" in err


def text_of(component):
    return json.dumps(component.to_plotly_json(), default=lambda part: part.to_plotly_json(), ensure_ascii=False)


def test_pages_say_from_the_weights_and_show_no_interval(run):
    reading = read(run, "copying_score")
    assert reading.of_weights and reading.signed
    row = row_in(reading, "L1H2")
    drawn_row = next(one for one in reading.table.itertuples() if one.name == "L1H2")
    for words in (
        hover(reading, drawn_row),
        text_of(measures(reading, row)),
        sentence(reading, "L1H2", values_of(run, reading, "L1H2")),
    ):
        assert "from the weights" in words
        assert "95 % interval" not in words and "clusters" not in words
    assert "6 layers" not in summary(reading) and "4 heads from the weights: median" in summary(reading)
    assert "from the weights" in figures.atlas(run, "copying_score").layout.title.text
    drawn = figures.head(run, "L1H2")
    assert all(
        "from the weights, no interval" in words for words in drawn.data[1].hovertext if "not defined" not in words
    )
    with make_app(run.path.parent).server.test_request_context("/"):
        assert headline(open_store(run.path.parent).run()) in ("copying_score", "composition")
        for page, query in ((atlas, {}), (head, {"head": "L1H2"})):
            shown = text_of(page.layout(run=run.id, probe="copying_score", **query))
            assert "from the weights" in shown and "1 prompts" not in shown
        figure, _, words = atlas.draw(
            {"run": run.id, "probe": "copying_score", "part": "", "stratum": "weights", "tower": "text", "minus": ""},
            "full", False, "one", 3, "light", None,
        )  # fmt: skip
        assert "from the weights" in words and figure.data[0].zmin == -figure.data[0].zmax
        shown = head.show_evidence("copying_score", "light", run.id, "L1H2", "weights", "text")
        assert shown[1].startswith("L1H2, from the weights: ")


def test_probes_and_readings_have_no_name_in_common():
    assert not set(all_probes()) & set(all_readings())
    assert torch.is_tensor(head_weights(tiny()).w_q)
