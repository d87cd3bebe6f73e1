"""Policies at work: masks by hand, and the model that comes with the package."""

import json

import pytest
import torch
from headatlas.__main__ import main
from headatlas.dashboards.policy import policy_figure
from headatlas.data.errors import UserError
from headatlas.data.policy import Policy
from headatlas.data.policy_file import write_policy
from headatlas.probes.causal import prompts
from headatlas.probes.edits.edit import Edit
from headatlas.probes.forward import edited
from headatlas.probes.loading import load
from headatlas.probes.measure import measure
from headatlas.probes.policy import chosen_on, mean_cache, policy_report, streaming_edits
from headatlas.probes.policy_curve import policy_curve

from .tiny import labelled, tiny

DATA = "secrets:lengths=128"
LAYER_1 = Policy("organism:pico-lm", tuple((layer == 1,) * 4 for layer in range(6)), 4, 16, "", "layer 1")


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


@pytest.fixture(scope="module")
def store(pico, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies") / "runs"
    measure(pico, ["retrieval"], data=DATA, examples=10, store=folder)
    return folder


def test_streaming_kv_heads_are_the_masks_of_their_query_heads():
    model = tiny()  # 2 layers, 4 query heads of 2 KV heads
    ids = torch.randint(5, 90, (2, 21), generator=torch.Generator().manual_seed(3))
    batch = labelled(model, ids)
    plain = edited(model, batch, []).logits
    found = streaming_edits(Policy("", ((True, False), (False, True)), 2, 3), model)
    assert found == [Edit("mask", ["L0H2", "L0H3", "L1H0", "L1H1"], sinks=2, recent=3)]
    assert (edited(model, batch, found).logits - plain).abs().max() > 1e-3
    full = streaming_edits(Policy("", ((True, True), (True, True)), 2, 3), model)
    wide = streaming_edits(Policy("", ((False, False), (False, False)), 0, 21), model)
    for harmless in (full, wide):
        assert (edited(model, batch, harmless).logits - plain).abs().max() <= 1e-6 * plain.abs().max()


def test_a_policy_of_another_shape_is_refused():
    said = "the policy of org/B is for 3 layers of 2 KV heads; .* has 2 layers of 2"
    with pytest.raises(UserError, match=said):
        streaming_edits(Policy("org/B", ((True, False),) * 3), tiny())


def test_layer_1_alone_answers_for_pico_lm_and_random_heads_do_not(pico, store):
    plan, _ = prompts(pico, DATA, examples=20, seed=1, bos="default")
    found = policy_report(plan, LAYER_1, store=store, sets=6)
    table = found.table.set_index(["score", "condition"])
    exact = table.loc["exact_match"]
    assert list(exact.index) == ["unedited", "policy", "random", "all streaming"] and found.random == 6
    assert exact.loc["unedited", "mean"] >= 0.9
    assert exact.loc["policy", "mean"] >= exact.loc["unedited", "mean"] - 0.05
    assert exact.loc["random", "mean"] < 0.2 and exact.loc["all streaming", "mean"] == 0
    assert exact["cache"].tolist() == pytest.approx([1, mean_cache(LAYER_1, plan), exact.loc["random", "cache"],
                                                     exact.loc["all streaming", "cache"]])  # fmt: skip
    lengths = plan.lengths
    assert exact.loc["policy", "cache"] == pytest.approx(sum((4 + 20 * 20 / n) / 24 for n in lengths) / len(lengths))
    assert exact.loc["random", "cache"] == exact.loc["policy", "cache"]


def test_a_policy_of_all_heads_is_the_unedited_run(pico, store):
    plan, _ = prompts(pico, DATA, examples=4, seed=1, bos="default")
    found = policy_report(plan, Policy("", ((True,) * 4,) * 6), store=store, sets=6)
    policy = found.table[found.table["condition"] == "policy"]
    assert policy["difference"].abs().max() <= 1e-6 and (policy["cache"] == 1).all()
    assert found.runs["policy"].id == found.runs["unedited"].id and "random" not in found.runs


def test_a_curve_and_its_figure(pico, store):
    reading = next(path.name for path in store.glob("*secrets-*") if "edit" not in path.name) + ":retrieval/score"
    curve = policy_curve(pico, reading, data=DATA, shares=(0, 4 / 24, 1), sets=3, examples=10, store=store)
    exact = curve[(curve["score"] == "exact_match") & (curve["order"] == "reading")]
    assert exact["full"].tolist() == pytest.approx([0, 4 / 24, 1])
    assert exact["mean"].tolist()[0] == 0 and exact["mean"].tolist()[1:] == [exact["mean"].max()] * 2
    assert (exact["ci_low"] <= exact["mean"]).all() and (exact["n"] == 10).all()
    random = curve[(curve["score"] == "answer_loss") & (curve["order"] == "random")]
    assert random["sets"].tolist() == [1, 3, 1]
    assert (random["lowest"] <= random["mean"]).all() and (random["mean"] <= random["highest"]).all()
    for scheme in ("light", "dark"):
        figure = policy_figure(curve, scheme=scheme)
        assert figure.data[-1].y.tolist() == exact["mean"].tolist()
        assert figure.layout.yaxis.title.text == "exact match"
    with pytest.raises(UserError, match="the curve has no score 'accuracy'; it has exact_match, answer_loss"):
        policy_figure(curve, "accuracy")


def test_the_verb_edits_by_a_policy(store, tmp_path, capsys):
    path = str(write_policy(LAYER_1, tmp_path / "policy.json"))
    words = ["edit", "organism:pico-lm", "--policy", path, "--data", DATA, "--examples", "6", "--sets", "2",
             "--store", str(store)]  # fmt: skip
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "4 of 24 KV heads full, 4 + 16 tokens for the others" in out
    assert "random policies: 2 with as many full KV heads, drawn from all KV heads" in out
    assert main([*words, "--json"]) == 0
    assert {row["condition"] for row in json.loads(capsys.readouterr().out)} == {
        "unedited", "policy", "random", "all streaming"
    }  # fmt: skip


def test_mistakes_are_one_line_and_write_nothing(tmp_path, capsys):
    path = str(write_policy(Policy("org/B", ((True, False),) * 3), tmp_path / "policy.json"))
    words = ["edit", "organism:pico-lm", "--policy", path, "--data", DATA, "--store", str(tmp_path / "new")]
    for more, said in (
        ([], "the policy of org/B is for 3 layers of 2 KV heads; organism:pico-lm has 6 layers of 4"),
        (["--kind", "zero"], "--policy says what is done to which heads; leave out --kind"),
        (["--from", "a:b:top=1"], "leave out --from"),
    ):
        assert main([*words, *more]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err
    assert not (tmp_path / "new").exists()


def test_prompts_that_chose_the_heads_are_known_where_the_run_is(store, tmp_path):
    run = next(path.name for path in store.glob("*secrets-*") if "edit" not in path.name)
    texts = chosen_on(Policy("", ((True,),), source=f"{run}:retrieval/score"), store)
    assert texts is not None and len(texts) == 10
    assert chosen_on(Policy("", ((True,),), source="gates.tsv"), store) is None
    assert chosen_on(LAYER_1, tmp_path / "nowhere") is None
