"""Scores, causal reports, budget curves and swaps: against the model's own logits, and numbers by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from headatlas.data.budget import stored_budget
from headatlas.data.causal import values_of
from headatlas.data.errors import StoreError, UserError
from headatlas.data.examples import Example
from headatlas.data.reports import budgets_in
from headatlas.data.schema import run_id
from headatlas.data.selection import choose_heads, orders_of
from headatlas.data.store import open_store
from headatlas.probes.budget import budget, sizes_of
from headatlas.probes.catalog import all_experiments, select
from headatlas.probes.causal import causal_report, every_head, prompts
from headatlas.probes.edit_run import EditPlan, Means, aligned, carry_out, partner_of
from headatlas.probes.edits.edit import Edit
from headatlas.probes.edits.sets import SAME, SHARED, random_sets
from headatlas.probes.forward import edited, head_outputs, mean_outputs
from headatlas.probes.loading import load
from headatlas.probes.measure import measure
from headatlas.probes.scores import scored, scores_for

from .tiny import labelled, tiny

DATA = "secrets:lengths=128,depths=0.5"
RETRIEVING = [f"L1H{head}" for head in range(8)]


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


@pytest.fixture(scope="module")
def plan(pico):
    return prompts(pico, DATA, examples=10, seed=7, bos="default")[0]


def test_scores_are_those_of_the_models_own_logits(pico, plan):
    examples = plan.data.examples
    names = scores_for(examples)
    assert names == ("exact_match", "answer_loss", "answer_entropy", "logit_difference", "choice")
    found = scored(plan, examples, names=names)
    for index, example in enumerate(examples):
        batch = plan.encode([example])
        with torch.no_grad():
            logits = pico.network(input_ids=batch.input_ids).logits[0]
        rows = (batch.targets[0] != -100).nonzero().squeeze(1)
        wanted = batch.targets[0][rows]
        logs = logits[rows].log_softmax(-1)
        assert found["answer_loss"][index] == pytest.approx(-logs.gather(1, wanted[:, None]).mean().item(), abs=1e-5)
        entropy = -(logs.exp() * logs).sum(-1).mean().item()
        assert found["answer_entropy"][index] == pytest.approx(entropy, abs=1e-5)
        assert found["exact_match"][index] == float((logits[rows].argmax(-1) == wanted).all())
        wrong = pico.tokenizer(example.wrong_answer, add_special_tokens=False)["input_ids"][0]
        difference = (logits[rows[0], wanted[0]] - logits[rows[0], wrong]).item()
        assert found["logit_difference"][index] == pytest.approx(difference, abs=1e-4)
        assert found["choice"][index] == float(difference > 0)


def test_scores_read_in_blocks_are_those_of_all_logits_at_once(plan, monkeypatch):
    examples = plan.data.examples
    whole = scored(plan, examples, names=scores_for(examples))
    text = scored(plan, examples, names=("token_loss",))
    monkeypatch.setattr("headatlas.probes.scores.BLOCK", 1000)  # one or two tokens at a time
    blocks = scored(plan, examples, names=scores_for(examples)) | scored(plan, examples, names=("token_loss",))
    assert all(torch.equal(blocks[name], values) for name, values in (whole | text).items())


def test_a_label_word_is_chosen_among_all_label_words(pico):
    made, _ = prompts(pico, "topic", examples=12, seed=0, bos="default")
    assert {len(one.choices) for one in made.data.examples} == {4}
    found = scored(made, made.data.examples, names=scores_for(made.data.examples))
    for index, example in enumerate(made.data.examples):
        batch = made.encode([example])
        with torch.no_grad():
            logits = pico.network(input_ids=batch.input_ids).logits[0]
        row = int((batch.targets[0] != -100).nonzero()[0])
        said = {
            word: logits[row, pico.tokenizer(word, add_special_tokens=False)["input_ids"][0]]
            for word in example.choices
        }
        best = max(said, key=said.get)
        assert found["choice"][index] == float(best == example.answer)
        others = max(float(value) for word, value in said.items() if word != example.answer)
        assert found["logit_difference"][index] == pytest.approx(float(said[example.answer]) - others, abs=1e-4)


def test_rows_that_an_edit_had_to_keep_are_in_its_run(plan, tmp_path):
    run = carry_out(EditPlan(plan, [[Edit("block", ["L1H0"], from_group="first")]]), tmp_path)
    lengths = run.examples()["tokens"]
    assert run.rows("rows_kept")["value"].tolist() == pytest.approx([1 / length for length in lengths])


def test_without_answers_every_token_is_judged(pico):
    made, _ = prompts(pico, "text:length=40", examples=3, seed=0, bos="default")
    found = scored(made, made.data.examples, names=("token_loss",))["token_loss"]
    batch = made.encode(made.data.examples[:1])
    with torch.no_grad():
        logits = pico.network(input_ids=batch.input_ids).logits[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], batch.input_ids[0, 1:])
    assert found[0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_of_repeats_the_second_copy_is_judged(pico):
    made, _ = prompts(pico, "repeats:length=40", examples=2, seed=0, bos="default")
    assert scores_for(made.data.examples) == ("repeat_match", "repeat_loss")
    found = scored(made, made.data.examples, names=("repeat_match", "repeat_loss"))
    batch = made.encode(made.data.examples[:1])
    second = batch.group_mask("repeat")[0].nonzero().squeeze(1)
    with torch.no_grad():
        logits = pico.network(input_ids=batch.input_ids).logits[0, second - 1]
    wanted = batch.input_ids[0, second]
    assert found["repeat_match"][0] == (logits.argmax(-1) == wanted).float().mean()
    assert found["repeat_loss"][0].item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, wanted).item(), 1e-5
    )


def test_a_report_sets_an_edit_beside_random_heads_and_all_others(pico, plan, tmp_path):
    found = causal_report(plan, Edit("zero", RETRIEVING), store=tmp_path, sets=5)
    table = found.table.set_index(["score", "condition"])
    assert (
        set(found.runs) == {"unedited", "edited", "random", "complement"}
        and found.drawn_from == "layers at most 1 away"
    )
    assert table.loc[("exact_match", "unedited"), "mean"] >= 0.9
    assert table.loc[("exact_match", "edited"), "mean"] <= 0.1
    line = table.loc[("exact_match", "edited")]
    assert line["difference"] == pytest.approx(line["mean"] - table.loc[("exact_match", "unedited"), "mean"])
    assert line["ci_low"] <= line["difference"] <= line["ci_high"] < 0 and line["n"] == 10
    random = values_of(found.runs["random"], "answer_loss")
    plain = values_of(found.runs["unedited"], "answer_loss")
    assert random.shape == (10, 5)
    difference = table.loc[("answer_loss", "edited"), "difference"]
    paired = values_of(found.runs["edited"], "answer_loss")[:, 0] - random.mean(1)
    assert difference - (random.mean(0) - plain.mean()).mean() == pytest.approx(paired.mean())
    effect = paired.mean() / np.sqrt(random.mean(0).var(ddof=1) + paired.var(ddof=1) / 10)
    assert table.loc[("answer_loss", "edited"), "effect"] == pytest.approx(effect)
    parents = {name: run.header["parents"] for name, run in found.runs.items()}
    base, edited_run = found.runs["unedited"].id, found.runs["edited"].id
    link = {"run": base, "relation": "edit-of"}
    assert parents == {
        "unedited": [],
        "edited": [link | {"as": "edited"}],
        "random": [link | {"as": "random", "beside": edited_run}],
        "complement": [link | {"as": "complement", "beside": edited_run}],
    }
    assert found.runs["edited"].header["edits"] == [[Edit("zero", RETRIEVING).card()]]


def test_a_stopped_edit_goes_on_and_gives_the_same(pico, plan, tmp_path):
    made = EditPlan(plan, [[Edit("zero", ["L1H0"])]])
    whole = carry_out(made, tmp_path / "a")

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(made, tmp_path / "b", report=stop)
    again = carry_out(made, tmp_path / "b")
    pd.testing.assert_frame_equal(again.rows("answer_loss"), whole.rows("answer_loss"))
    assert again.id == whole.id


def test_prompts_that_chose_the_heads_are_left_out(pico, tmp_path):
    run = measure(pico, "retrieval", DATA, examples=10, store=tmp_path, seed=7)
    picked = choose_heads(open_store(tmp_path), f"{run.id}:retrieval/score:top=8")
    assert sorted(picked.heads) == [(1, head) for head in range(8)]
    above = choose_heads(open_store(tmp_path), f"{run.id}:retrieval/score:above=0.5")
    assert sorted(above.heads) == sorted(picked.heads)
    with pytest.raises(UserError, match=r"all 10 prompts of .* were used to choose the heads; use another --seed"):
        prompts(pico, DATA, examples=10, seed=7, bos="default", without=picked.texts)
    made, left_out = prompts(pico, DATA, examples=10, seed=7, bos="default", without=picked.texts[:4])
    assert (left_out, len(made.data.examples), len(made.frame)) == (4, 6, 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latest:retrieval/score", "expected RUN:PROBE:top=5, :lowest=5 or :above=0.1"),
        ("latest:retrieval/score:top=0", "expected a whole number of heads, 1 or more"),
        ("latest:retrieval/score:top=99", "that is 99 heads of 48 with a value"),
        ("latest:retrieval/score:above=2", "that is 0 heads of 48 with a value; the highest are"),
    ],
)
def test_a_choice_of_heads_that_can_not_be_made_is_refused(pico, tmp_path, text, said):
    measure(pico, "retrieval", DATA, examples=2, store=tmp_path)
    with pytest.raises(UserError, match=said):
        choose_heads(open_store(tmp_path), text)


def test_random_sets_keep_layers_where_they_can():
    every = [(layer, head) for layer in range(4) for head in range(8)]
    sets, where = random_sets([(1, 0), (2, 3)], every, count=30, seed=0)
    assert where == SAME and len(sets) == 30
    assert all([layer for layer, _ in one] == [1, 2] and not {(1, 0), (2, 3)} & set(one) for one in sets)
    near, where = random_sets([(1, 0)], every, count=40, seed=0)
    assert where == "layers at most 1 away", "seven other heads of layer 1 are too few"
    assert {layer for one in near for layer, _ in one} == {0, 1, 2} and all((1, 0) not in one for one in near)
    whole, where = random_sets([(1, head) for head in range(8)], every, count=5, seed=0)
    assert where == "layers at most 1 away" and all(len(set(one)) == 8 for one in whole)
    assert {layer for one in whole for layer, _ in one} == {0, 2}
    assert random_sets(every, every, count=5, seed=0) == ([], SAME)
    assert random_sets(every[:20], every, count=5, seed=0)[1] == SHARED
    assert random_sets([(1, 0)], every, count=5, seed=3) == random_sets([(1, 0)], every, count=5, seed=3)


def test_a_budget_ranks_what_matters_above_what_does_not(pico, plan, tmp_path):
    good = [(1, head) for head in range(8)]
    bad = [one for one in every_head(pico) if one[0] > 1]
    found = budget(plan, Edit("zero"), {"good": good, "bad": bad}, store=tmp_path, random_orders=3)
    assert sizes_of(48) == [0, 1, 2, 4, 8, 16, 32, 48]
    assert found.scores["reading"].tolist() == ["good", "bad"] and found.score == "exact_match"
    areas = found.scores.set_index("reading")
    assert areas.loc["good", "area"] > 0 > areas.loc["bad", "area"]
    assert areas.loc["good", "to_half"] <= 8 < areas.loc["bad", "to_half"]
    assert areas["named"].tolist() == [8, 32]
    curves = found.curves.set_index(["reading", "heads"])
    assert curves.loc[("good", 4), "added"] == "L1H2 L1H3" and curves.loc[("good", 16), "named"] == 8


def test_a_budget_is_opened_again_with_another_score_and_an_old_one_learns_its_orders(
    pico, plan, tmp_path, monkeypatch
):
    asked = (plan, Edit("zero"), {"good": [(1, head) for head in range(8)]})
    made = budget(*asked, store=tmp_path, random_orders=2)
    again = stored_budget(open_store(tmp_path).run(made.run.id))
    pd.testing.assert_frame_equal(again.scores, made.scores)
    pd.testing.assert_frame_equal(again.curves, made.curves)
    assert again.score == "exact_match" and [one.id for one in budgets_in(tmp_path)] == [made.run.id]
    loss = stored_budget(made.run, "answer_loss")
    values = values_of(made.run, "answer_loss")[:, made.run.header["budget"]["orders"]["good"]]
    good = loss.curves[loss.curves["reading"] == "good"]
    assert good["mean"].tolist() == pytest.approx(values.mean(0).tolist()) and loss.scores["area"][0] > 0
    with pytest.raises(StoreError, match="has no score 'accuracy'; it has exact_match"):
        stored_budget(made.run, "accuracy")
    with pytest.raises(UserError, match="these prompts have no score 'accuracy'"):
        budget(*asked, store=tmp_path, random_orders=2, score="accuracy")
    with pytest.raises(UserError, match="expected an order whose name does not begin with 'random'"):
        budget(plan, Edit("zero"), {"random": []}, store=tmp_path)
    file = made.run.path / "run.json"
    header = json.loads(file.read_text())
    del header["budget"]
    file.write_text(json.dumps(header))
    with pytest.raises(StoreError, match="says no orders of heads"):
        stored_budget(made.run)
    monkeypatch.setattr("headatlas.probes.edit_run.scored", None)  # no forward is run again
    assert stored_budget(budget(*asked, store=tmp_path, random_orders=2).run).scores.equals(made.scores)


def test_a_run_stands_for_all_its_readings_of_heads(pico, tmp_path):
    run = measure(pico, "retrieval,residual,needle_mass", DATA, examples=4, store=tmp_path)
    found, used = orders_of(open_store(tmp_path), [run.id])
    assert set(used) == set(run.examples()["text"])
    assert set(found) == {"retrieval/score", "retrieval/as released", "needle_mass/needle", "needle_mass/distractor"}
    assert all(len(order) == 48 for order in found.values())


def test_mean_outputs_are_means_over_real_tokens():
    model = tiny()
    ids = torch.randint(5, 90, (2, 21), generator=torch.Generator().manual_seed(3))
    short = labelled(model, ids[:1, :9])
    found = mean_outputs(model, [labelled(model, ids), short])
    outputs = [head_outputs(model, one)["text", 1] for one in (labelled(model, ids), short)]
    expected = torch.cat([one.transpose(1, 2).flatten(0, 1) for one in outputs]).mean(0)
    torch.testing.assert_close(found["text", 1], expected)


def test_a_partner_is_the_next_prompt_of_another_cluster():
    examples = [Example(id=str(index), text="a", cluster=cluster) for index, cluster in enumerate("aabc")]
    assert [partner_of(examples, index) for index in range(4)] == [2, 2, 3, 0]
    assert [partner_of(examples[:2], index) for index in range(2)] == [1, 0], "all of one cluster: the next one"
    with pytest.raises(UserError, match="expected 2 prompts or more, came 1"):
        partner_of(examples[:1], 0)


def test_a_partner_is_read_at_the_same_token_or_its_last():
    batch = labelled(tiny(), torch.full((1, 4), 5))
    output = torch.arange(4.0).view(1, 1, 4, 1)
    assert aligned(output, batch, 6).flatten().tolist() == [0, 1, 2, 3, 3, 3]
    assert aligned(output, batch, 2).flatten().tolist() == [0, 1]


def test_other_means_are_another_run(pico, plan):
    edit = [[Edit("mean", ["L1H0"])]]
    other, _ = prompts(pico, DATA, examples=4, seed=99, bos="default")
    ids = {run_id(EditPlan(plan, edit, means=Means(one)).header()) for one in (plan, other)}
    assert len(ids) == 2


def test_a_swap_is_the_distance_of_the_last_hidden_states(pico, plan):
    (swap,) = select("streaming_swap")
    assert swap is all_experiments()["streaming_swap"] and swap not in select("all")
    batch = plan.encode(plan.data.examples[:3])
    found = {call.layer: reading for call, reading in swap.measure(pico, batch)}
    assert sorted(found) == list(range(6)) and found[1].values.shape == (3, 8, 2)
    assert found[1].values[..., 1].isnan().all(), "prompts of 128 tokens fit a cache of 320"
    edits = [Edit("mask", ["L1H2", "L1H3"], sinks=4, recent=16)]
    plain, other = (edited(pico, batch, one, network=pico.network.base_model).last_hidden_state for one in ([], edits))
    rows = batch.targets != -100
    expected = [((plain - other) ** 2).mean(-1)[index][rows[index]].mean().item() for index in range(3)]
    assert found[1].values[:, 2, 0].tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(found[1].values[:, 2], found[1].values[:, 3]) or found[1].values[:, 2, 0].allclose(
        found[1].values[:, 3, 0]
    )
    assert swap.forwards(pico) == 1 + 2 * 24
