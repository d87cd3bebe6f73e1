"""Causal reports read back from a store: the numbers that were printed, and which runs belong together."""

import json

import pandas as pd
import pytest
from headatlas.data.errors import StoreError
from headatlas.data.reports import find_report, reports_in, stored_report
from headatlas.data.selection import choose_heads
from headatlas.data.store import open_store
from headatlas.probes.causal import causal_report, prompts
from headatlas.probes.edits.edit import Edit
from headatlas.probes.loading import load
from headatlas.probes.measure import measure

DATA = "secrets:lengths=128,depths=0.5"
FIRST = Edit("zero", ["L1H0", "L1H1"])
SECOND = Edit("zero", ["L4H0", "L4H1"])


@pytest.fixture(scope="module")
def pico():
    return load("organism:pico-lm")


@pytest.fixture(scope="module")
def plan(pico):
    return prompts(pico, DATA, examples=6, seed=7, bos="default")[0]


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    """Two edits of as many heads beside one unedited run."""
    store = tmp_path_factory.mktemp("reports")
    return store, {one: causal_report(plan, one, store=store, sets=3) for one in (FIRST, SECOND)}


def test_a_report_is_read_back_as_it_was_made(made):
    store, reports = made
    for report in reports.values():
        found = stored_report(open_store(store).run(report.runs["edited"].id))
        pd.testing.assert_frame_equal(found.table, report.table)
        assert {name: run.id for name, run in found.runs.items()} == {name: run.id for name, run in report.runs.items()}
        assert (found.heads, found.drawn_from) == (report.heads, report.drawn_from)


def test_edits_of_the_same_prompts_share_their_unedited_run_and_keep_their_own_controls(made):
    store, reports = made
    found = reports_in(store)
    assert [one.header["said"] for one in found] == [f"edited: {one.spelled}" for one in (SECOND, FIRST)]
    assert len({one.base for one in found}) == 1
    assert all(list(one.runs) == ["unedited", "edited", "random", "complement"] for one in found)
    assert not {*list(found[0].runs.values())[1:]} & {*list(found[1].runs.values())[1:]}
    assert find_report(found, reports[FIRST].runs["random"].id).id == reports[FIRST].runs["edited"].id
    assert find_report(found, found[0].base).id == reports[SECOND].runs["edited"].id, "of the shared run the latest"


def test_a_run_may_stand_in_two_reports(plan, made, tmp_path):
    """All other heads of an edit are the edited heads of another; what is stored is linked, not scored again."""
    first = causal_report(plan, FIRST, store=tmp_path, sets=0)
    names = first.runs["complement"].header["edits"][0][0]["heads"]
    other = causal_report(plan, Edit("zero", names), store=tmp_path, sets=0)
    assert other.runs["edited"].id == first.runs["complement"].id
    assert other.runs["complement"].id == first.runs["edited"].id
    found = {one.id: dict(one.runs) for one in reports_in(tmp_path)}
    ids = {"unedited": first.runs["unedited"].id}
    for one in (first, other):
        wanted = ids | {name: one.runs[name].id for name in ("edited", "complement")}
        assert found[one.runs["edited"].id] == wanted


def test_runs_that_name_no_role_are_put_together_only_where_nothing_else_fits(made, tmp_path):
    store, reports = made
    for report in reports.values():
        for run in report.runs.values():
            header = json.loads((store / run.id / "run.json").read_text())
            header["parents"] = [{"run": one["run"], "relation": "edit-of"} for one in header["parents"]]
            (tmp_path / run.id).mkdir(exist_ok=True)
            (tmp_path / run.id / "run.json").write_text(json.dumps(header))
    assert [list(one.runs) for one in reports_in(tmp_path)] == [["unedited", "edited"]] * 2, "two edits of two heads"
    for run in list(reports[SECOND].runs.values())[1:]:
        (tmp_path / run.id / "run.json").unlink()
    (alone,) = reports_in(tmp_path)
    assert dict(alone.runs) == {name: run.id for name, run in reports[FIRST].runs.items()}


def test_what_chose_the_heads_is_kept(pico, plan, tmp_path):
    run = measure(pico, "retrieval", DATA, examples=4, store=tmp_path, seed=3)
    picked = choose_heads(open_store(tmp_path), "latest:retrieval/score:top=1")
    assert (picked.run, picked.rule) == (run.id, "retrieval/score:top=1")
    edit = Edit("zero", [f"L{layer}H{head}" for layer, head in picked.heads])
    causal_report(plan, edit, store=tmp_path, sets=0)
    causal_report(plan, edit, store=tmp_path, sets=0, picked=picked, left_out=2)
    (card,) = reports_in(tmp_path)
    wanted = {"run": run.id, "relation": "chosen-by", "reading": "retrieval/score:top=1", "left_out": 2}
    assert card.chosen_by == wanted
    assert stored_report(open_store(tmp_path).run(card.id)).left_out == 2
    with pytest.raises(StoreError, match=f"run {run.id} stands in no causal report; `headatlas edit` writes one"):
        stored_report(run)
