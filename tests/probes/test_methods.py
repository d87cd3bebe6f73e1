"""Named methods: they find what was planted, choose on one half of the prompts, and report on the other."""

import json
import os

import headatlas as ha
import numpy as np
import pytest
import torch
from headatlas.__main__ import main
from headatlas.data.errors import UserError
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.data.tokens import IGNORED
from headatlas.probes.causal import prompts
from headatlas.probes.edits.edit import Edit
from headatlas.probes.edits.sets import SAME, SHARED, random_sets
from headatlas.probes.forward import edited, observe
from headatlas.probes.loading import load
from headatlas.probes.methods.catalog import METHODS
from headatlas.probes.methods.search import halves
from headatlas.probes.methods.zero_tuning import gamma_edit

from .tiny import GROUPS, HEADS, LAYERS, labelled, tiny, tiny_network

EXAMPLES = 32
PLANTED = "L0H1"


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def written(path, answers=None, *, together=1, span=()):
    """Random prompts, each followed by its answer; `together` of them share a cluster."""
    random = np.random.default_rng(0)
    made = [
        Example(
            id=f"e{k}",
            token_ids=tuple(random.integers(5, 90, 11 + k % 3).tolist()),
            answer_ids=None if answers is None else (int(answers[k]),),
            cluster=f"c{k // together}",
            spans={"needle": ((2, 5),)} if span else {},
        )
        for k in range(EXAMPLES)
    ]
    write_examples(path, made)
    return str(path)


def planted(model, folder, edits):
    """Prompts whose answers are what the model says with some edits in force."""
    plan, _ = prompts(model, written(folder / "any.jsonl", [7] * EXAMPLES), examples=EXAMPLES, seed=1, bos="default")
    batch = plan.encode(plan.data.examples)
    row = (batch.targets != IGNORED).long().argmax(1)
    said = edited(model, batch, edits).logits[torch.arange(EXAMPLES), row].argmax(-1)
    by_id = dict(zip(plan.frame["id"], said.tolist(), strict=True))
    return written(folder / "planted.jsonl", [by_id[f"e{k}"] for k in range(EXAMPLES)])


def options(folder, **more):
    return {"examples": EXAMPLES, "sets": 2, "store": folder / "runs", **more}


def test_gamma_is_its_closed_form():
    """a'_0 = gamma a_0 / (1 + (gamma - 1) a_0), a'_j = a_j / (1 + (gamma - 1) a_0)."""
    model = tiny()
    ids = torch.randint(5, 90, (2, 14), generator=torch.Generator().manual_seed(0))
    batch = labelled(model, ids, {"needle": slice(0, 1), "user": slice(3, 7)})
    first, user = GROUPS.index("needle"), GROUPS.index("user")
    for gamma in (0.3, 1.0, 4.0):
        plain, found = (
            observe(model, batch, {"group_mass"}, edits=edits, layers=lambda call: call.layer == 0)[0]["group_mass"]
            for edits in ([], [gamma_edit([(0, head) for head in range(HEADS)], gamma)])
        )
        divided = 1 + (gamma - 1) * plain[..., first]
        torch.testing.assert_close(found[..., first], gamma * plain[..., first] / divided, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[..., user], plain[..., user] / divided, rtol=1e-5, atol=1e-6)


def test_zero_tuning_finds_the_head_and_the_gamma_that_were_planted(tmp_path):
    model = tiny()
    data = planted(model, tmp_path, [Edit("boost", [PLANTED], from_group="first", amount=30.0)])
    found = ha.zero_tuning(model, data, up=30.0, grid=(0.5, 30.0), score="answer_loss", **options(tmp_path))
    heads = found.heads.set_index("heads")
    gains = heads["gain_up"].drop(PLANTED)
    assert heads.loc[PLANTED, "label"] == "up" and heads.loc[PLANTED, "gain_up"] > 0.5 > 2 * gains.max()
    assert len(heads) == LAYERS * HEADS and found.n == (16, 16)
    assert set(found.edit.heads) == set(heads.query("kept").index) and found.edit.amount == 30.0
    loss = found.table.query("score == 'answer_loss'").set_index("condition")
    assert loss.loc["edited", "ci_high"] < 0


def test_gamma_1_changes_nothing_and_so_nothing_is_chosen(tmp_path):
    model = tiny()
    data = planted(model, tmp_path, [Edit("boost", [PLANTED], from_group="first", amount=30.0)])
    found = ha.zero_tuning(model, data, up=30.0, grid=(1.0,), **options(tmp_path))
    assert found.heads["kept"].any() and found.grid["gain"].tolist() == [0.0]
    assert found.edit is None and set(found.runs) == {"unedited"}


def test_a_head_index_in_all_layers_at_once(tmp_path):
    model = tiny()
    every = [f"L{layer}H1" for layer in range(LAYERS)]
    data = planted(model, tmp_path, [Edit("boost", every, from_group="first", amount=30.0)])
    found = ha.zero_tuning(model, data, up=30.0, grid=(30.0,), across_layers=True, **options(tmp_path))
    assert found.heads["heads"].tolist() == [f"H{head} of all layers" for head in range(HEADS)]
    assert found.heads.loc[found.heads["gain_up"].idxmax(), "heads"] == "H1 of all layers"
    assert set(every) <= set(found.edit.heads)


def test_without_labels_gamma_has_the_least_entropy(tmp_path):
    model = tiny()
    data, grid = written(tmp_path / "any.jsonl", [7] * EXAMPLES), (0.1, 0.5, 0.7, 1.5, 3.0)
    found = ha.zero_tuning(model, data, grid=grid, score="answer_entropy", **options(tmp_path))
    others = written(tmp_path / "other.jsonl", [9] * EXAMPLES)
    other = ha.zero_tuning(model, others, grid=grid, score="answer_entropy", **options(tmp_path))
    assert found.edit == other.edit, "the answers' first tokens are not read"
    assert found.edit.amount == found.grid.loc[found.grid["mean"].idxmin(), "amount"]


def test_act_keeps_the_planted_head(tmp_path):
    model = tiny()
    data = planted(model, tmp_path, [Edit("act", [PLANTED], amount=0.0, threshold=0.05)])
    found = ha.act_search(model, data, amount=0.0, threshold=0.05, leave_out=(), **options(tmp_path))
    heads = found.heads.set_index("heads")
    assert heads["gain"].idxmax() == PLANTED and heads.loc[PLANTED, "mean"] == 1.0
    assert set(found.edit.heads) == set(heads.query("gain > 0").index)
    left = ha.act_search(model, data, amount=0.0, threshold=0.05, leave_out=(0,), **options(tmp_path)).heads
    assert {name[:2] for name in left["heads"]} == {"L1"}


def test_greedy_scales_back_the_head_that_was_scaled_down(tmp_path):
    """One head writes a tenth of what it did; ten times is best for it, and nothing is better than the whole model."""
    data = planted(tiny(), tmp_path, [])
    network = tiny_network()
    with torch.no_grad():
        network.model.layers[1].self_attn.o_proj.weight[:, 16:24] *= 0.1
    model = load((network, None))
    found = ha.greedy_heads(model, data, kind="scale", amount=10.0, k=3, **options(tmp_path))
    assert found.heads["heads"].tolist() == ["L1H2"] and found.heads["mean"].tolist() == [1.0]
    exact = found.table.query("score == 'exact_match'").set_index("condition")
    assert exact.loc["edited", "mean"] == 1.0 and exact.loc["unedited", "mean"] < 0.9
    assert exact.loc["edited less random", "difference"] > 0 and exact.loc["edited", "n"] == 16
    link = {"run": found.runs["unedited"].id, "relation": "edit-of", "as": "edited"}
    assert found.runs["edited"].header["parents"] == [link]


def test_greedy_worse_adds_the_head_that_hurts_most_with_those_taken(tmp_path):
    model = tiny()
    data = planted(model, tmp_path, [])
    found = ha.greedy_heads(model, data, k=2, goal="worse", score="answer_loss", **options(tmp_path))
    plan, _ = halves(prompts(model, data, examples=EXAMPLES, seed=1, bos="default")[0])
    every = [f"L{layer}H{head}" for layer in range(LAYERS) for head in range(HEADS)]
    taken = []
    for name in found.heads["heads"]:
        losses = {one: _loss(model, plan, [*taken, one]) for one in every if one not in taken}
        assert max(losses, key=losses.get) == name
        taken.append(name)
    assert found.heads["mean"].is_monotonic_increasing and len(taken) == 2


def _loss(model, plan, heads):
    batch = plan.encode(plan.data.examples)
    row = (batch.targets != IGNORED).long().argmax(1)
    at = torch.arange(len(row))
    logits = edited(model, batch, [Edit("zero", heads)]).logits[at, row]
    return float(torch.nn.functional.cross_entropy(logits, batch.targets[at, row]))


def test_pasta_dampens_all_keys_of_the_prompt_but_the_group_s(tmp_path):
    model = tiny()
    data = written(tmp_path / "spans.jsonl", [7] * EXAMPLES, span=True)
    found = ha.pasta(model, data, group="needle", grid=(0.2,), **options(tmp_path))
    assert found.edit == Edit("boost", from_group="not:needle+answer", amount=0.2) and not len(found.grid)
    assert set(found.runs) == {"unedited", "edited"}, "every head is edited, so there are no others"
    some = ha.pasta(model, data, group="needle", grid=(0.2,), heads=(PLANTED,), **options(tmp_path))
    assert some.edit.heads == (PLANTED,) and "random" in some.runs


def test_halves_share_no_cluster_and_a_search_reads_its_half_alone(tmp_path):
    model = tiny()
    data = written(tmp_path / "pairs.jsonl", [7] * EXAMPLES, together=2)
    plan, _ = prompts(model, data, examples=EXAMPLES, seed=1, bos="default")
    first, second = halves(plan)
    clusters = [set(one.frame["cluster"]) for one in (first, second)]
    assert not clusters[0] & clusters[1] and list(map(len, clusters)) == [8, 8]
    assert len(first.data.examples) + len(second.data.examples) == EXAMPLES
    assert [one.id for one in second.data.examples] == second.frame["id"].tolist()
    found = ha.act_search(model, data, leave_out=(), **options(tmp_path))
    reported = {name for run in found.runs.values() for name in run.examples()["cluster"]}
    assert reported == clusters[1]


def test_the_same_call_again_computes_nothing(tmp_path, monkeypatch):
    model = tiny()
    data = planted(model, tmp_path, [])
    found = ha.greedy_heads(model, data, k=1, goal="worse", **options(tmp_path))
    monkeypatch.setattr("headatlas.probes.edit_run.scored", None)
    again = ha.greedy_heads(model, data, k=1, goal="worse", **options(tmp_path))
    assert again.table.equals(found.table) and again.edit == found.edit


def test_random_sets_of_most_heads_are_drawn_from_all():
    every = [(0, head) for head in range(8)]
    sets, where = random_sets(every[:6], every, count=4, seed=0)
    assert where == SHARED and [len(set(one)) for one in sets] == [6] * 4 and len(set(map(tuple, sets))) > 1
    assert random_sets(every, every, count=4, seed=0) == ([], SAME)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["zero-tunning"],
            "unknown method 'zero-tunning'. Did you mean 'zero-tuning'? Expected one of zero-tuning, act",
        ),
        (["zero-tuning", "--grid", "0.5,0"], "zero-tuning: expected a grid of values above 0, as 0.5,1,2; came 0"),
        (["pasta", "--grid", "a"], "expected numbers joined by commas, as 0.5,1,2; came 'a'"),
        (["zero-tuning", "--up", "0.5"], "expected down in 0..1 and up above 1; came 0.5 and 0.5"),
        (["zero-tuning", "--k", "2"], "zero-tuning takes --up, --down, --grid, --across-layers; came --k"),
        (["act", "--score", "exact_match"], "have no answers; expected one of token_loss"),
        (["act", "--score", "exact"], "unknown score 'exact'. Did you mean 'exact_match'?"),
        (["act"], "leaving out layers 0,1,-1 of 2 leaves 0 heads"),
        (["act", "--leave-out", "7"], "leaving out layers 7 of 2 leaves 8 heads; expected layers from -2 to 1"),
        (["act", "--amount", "2"], "edit act: expected an amount from 0 to 1, came 2"),
        (["pasta", "--group", "needle"], "no token of"),
        (["greedy", "--k", "9"], "expected at most the model's 8 heads; came k=9"),
        (["greedy", "--goal", "best"], "expected a goal of better, worse and 1 head or more; came 'best', k=4"),
        (["greedy", "--kind", "boost"], "edit boost needs amount, a number that says how much; it takes from_group"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words, message, tmp_path, capsys, monkeypatch):
    model = tiny()
    monkeypatch.setattr("headatlas.probes.tune_verbs.load_model", lambda args: model)
    data = written(tmp_path / "plain.jsonl")
    assert main(["tune", "tiny", *words, "--data", data, "--store", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists(), "nothing ran"


def test_one_cluster_is_refused(tmp_path):
    model = tiny()
    data = written(tmp_path / "one.jsonl", [7] * EXAMPLES, together=EXAMPLES)
    with pytest.raises(UserError, match="expected prompts of 2 clusters or more"):
        ha.act_search(model, data, leave_out=(), **options(tmp_path))


def test_the_verb_says_what_it_takes_and_prints_both_halves(tmp_path, capsys, monkeypatch):
    model = tiny()
    monkeypatch.setattr("headatlas.probes.tune_verbs.load_model", lambda args: model)
    data = planted(model, tmp_path, [])
    words = ["tune", "tiny", "greedy", "--k", "1", "--goal", "worse", "--data", data, "--sets", "2"]
    words += ["--examples", str(EXAMPLES), "--store", str(tmp_path / "runs")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert f"greedy: up to {16 * 9 + 16 * 5} forwards of one prompt; 16 prompts to choose on, 16 held out" in said.err
    assert "chosen: zero of L" in said.out and "edited less random" in said.out
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["edit"]["kind"] == "zero" and record["n"] == [16, 16] and set(record["runs"]) >= {"edited", "random"}


@pytest.mark.slow
def test_pico_lm_needs_a_head_of_its_first_layer(tmp_path):
    """The head whose silence hurts most, L0H2 on these prompts, hurts more than a random head does."""
    found = ha.greedy_heads(
        ha.load("organism:pico-lm"), "secrets:lengths=128", k=1, goal="worse", score="answer_loss", examples=16,
        sets=5, store=tmp_path / "runs",
    )  # fmt: skip
    assert found.heads["heads"].item().startswith("L0")
    row = found.table.query("condition == 'edited less random' and score == 'answer_loss'")
    assert row["difference"].item() > 0 and row["n"].item() == 8


def test_every_method_is_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in METHODS)
