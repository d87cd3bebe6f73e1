"""The page of edits and its pictures: numbers in traces, links both ways, what a wrong or an empty store says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from headatlas.dashboards.app import make_app
from headatlas.dashboards.budget import CLASSES, area, budget_figure, spaced
from headatlas.dashboards.causal import causal_figure
from headatlas.dashboards.causal_words import causal_sentence, edit_words
from headatlas.dashboards.edit_table import rows_of
from headatlas.dashboards.edited import edit_commands
from headatlas.dashboards.export import python_for_report
from headatlas.dashboards.pages import atlas, edits
from headatlas.dashboards.pages import runs as runs_page
from headatlas.dashboards.state import edits_of
from headatlas.dashboards.wording import effect_text
from headatlas.data.causal import CausalReport
from headatlas.data.errors import UserError
from headatlas.data.intervals import newcombe, wilson
from headatlas.data.reports import reports_in, stored_report
from headatlas.data.store import open_store

from .test_app import text_of


@pytest.fixture(scope="module")
def report(edited) -> CausalReport:
    store, _, made = edited
    return stored_report(store.run(made[0]["edited"]))


@pytest.fixture
def inside(edited):
    with make_app(edited[0].path).server.test_request_context("/"):
        yield


def traces(figure, meta):
    return [found for found in figure.data if found.meta == meta]


def test_points_are_the_means_with_their_intervals(report):
    figure = causal_figure(report)
    point = {name: traces(figure, name)[0] for name in ("unedited", "edited", "random", "complement")}
    assert [point[name].x[0] for name in point] == pytest.approx([0.9, 0.1, 0.7, 0.0])
    assert [point[name].y[0] for name in point] == [3, 2, 1, 0], "the unedited model at the top"
    low, high = (float(end) for end in wilson(2.0, 20))
    spread = point["edited"].error_x
    assert (spread.arrayminus[0], spread.array[0]) == pytest.approx((0.1 - low, high - 0.1))
    assert point["edited"].hovertext[0].startswith("<b>edited, L5H1, L5H5</b><br>mean 0.100, 95 % interval 0.0")
    assert point["random"].error_x.array is None, "its mean is a bar across the sets"
    assert figure.layout.title.text == "<b>Edit zero of L5H1, L5H5</b> · gpt2 · n 20"


def test_each_random_set_is_a_dot(report):
    match, loss = traces(causal_figure(report), "sets")
    assert sorted(match.x) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert sorted(loss.x) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(abs(np.asarray(match.y) - 1) < 0.3)


def test_the_paired_difference_stands_beside_each_line(report):
    notes = {note.name: note.text for note in causal_figure(report).layout.annotations}
    plain, other = (np.arange(20)[:, None] < hits for hits in (18, 2))
    low, high = (float(end[0]) for end in newcombe(other.astype(float), plain.astype(float), range(20)))
    assert notes["exact_match/edited"] == f"<b>-0.800</b>  {low:.3f} to {high:.3f}"
    assert notes["answer_loss/edited"].startswith("<b>+1.600</b>  +")
    assert "exact_match/unedited" not in notes
    assert notes["heading"] == "difference to unedited, 95 %"


def test_a_single_score_can_be_drawn_and_an_unknown_one_is_refused(report):
    figure = causal_figure(report, "answer_loss", title=False, scheme="dark")
    assert len(traces(figure, "edited")) == 1 and traces(figure, "edited")[0].x[0] == pytest.approx(1.8)
    assert figure.layout.title.text is None
    assert "<b>Answer loss</b> · nats · lower is better" in {note.text for note in figure.layout.annotations}
    with pytest.raises(UserError, match="the report has no score 'accuracy'; it has exact_match, answer_loss"):
        causal_figure(report, "accuracy")


def test_the_table_has_a_row_a_score(report):
    rows = rows_of(report).set_index("name")
    assert rows.loc["exact_match", ["unedited", "edited", "difference", "random"]].tolist() == pytest.approx(
        [0.9, 0.1, -0.8, 0.7]
    )
    sets = np.arange(20)[:, None] < np.array([18, 16, 14, 12, 10])
    paired = (np.arange(20) < 2) - sets.mean(1)
    error = paired.std(ddof=1) / np.sqrt(20)
    deviation = np.sqrt(sets.mean(0).var(ddof=1) + error**2)
    assert rows.loc["exact_match", "effect"] == pytest.approx(paired.mean() / deviation)
    assert rows.loc["exact_match", "no_effect"] == ""
    assert rows.loc["answer_loss", "score"] == "Answer loss" and rows["n"].tolist() == [20, 20]


def test_where_there_is_no_effect_page_and_picture_say_why(report):
    lacking = report.table.assign(effect=np.nan, no_effect="fewer than 5 random sets")
    without = replace(report, table=lacking)
    assert causal_sentence(without).endswith(" No effect is given: fewer than 5 random sets.")
    assert "no effect: fewer than 5 random sets" in traces(causal_figure(without), "edited")[0].hovertext[0]
    effect = f"effect {effect_text(report.table['effect'][1])} from the mean of the random sets"
    assert effect in traces(causal_figure(report), "edited")[0].hovertext[0]


def test_a_narrow_picture_has_names_and_differences_above_the_lines(report):
    figure = causal_figure(report, title=False, narrow=True)
    notes = {note.name: note for note in figure.layout.annotations}
    name, difference = notes["exact_match/edited/name"], notes["exact_match/edited"]
    assert name.text == "<b>edited, L5H1, L5H5</b>" and (name.x, name.xanchor) == (0, "left")
    assert (difference.x, difference.xanchor, difference.yshift) == (1, "right", name.yshift) and name.yshift > 0
    assert not figure.layout.yaxis.showticklabels and figure.layout.margin.r < 20 and "heading" not in notes
    assert figure.layout.height > causal_figure(report, title=False).layout.height


def test_the_caption_says_the_first_score(report):
    said = causal_sentence(report)
    assert said.startswith("Exact match, with zero of L5H1, L5H5: 0.100, unedited 0.900; difference -0.800, 95 %")
    assert said.endswith(
        "5 random sets of as many heads, from the same layers: mean 0.700, single ones 0.500 to 0.900."
    )


def test_many_heads_are_counted_and_parameters_said(edited):
    store, _, made = edited
    runs = {name: store.run(made[0][name]) for name in ("unedited", "complement")}
    runs["edited"] = runs.pop("complement")
    assert edit_words(CausalReport(pd.DataFrame(), runs, ("L0H0",) * 5, "", 0)) == "zero of 5 heads"


def test_the_page_says_what_was_edited_and_leads_back(inside, edited):
    _, run, made = edited
    said = text_of(edits.layout(edit=made[0]["edited"]))
    assert "Zero of L5H1, L5H5" in said and "induction:top=2" in said and "5 random sets from the same layers" in said
    assert "5 that chose the heads were left out" in said
    assert f"/atlas?run={run.id}&probe=induction&heads=L5H1%2CL5H5" in said
    assert "headatlas edit gpt2 --heads L5H1,L5H5" in said
    assert all(one in said for one in made[0].values()), "every run of the report is named"
    again = text_of(edits.layout(edit=made[0]["random"]))
    assert "Zero of L5H1, L5H5" in again, "a control opens the report it stands in"


def test_the_edits_of_a_run_are_those_it_chose_first(edited):
    _, run, made = edited
    assert [one.id for one in edits_of(run)] == [made[0]["edited"], made[1]["edited"]]


def test_the_atlas_leads_to_the_edits_of_its_model_and_frames_heads(inside, edited):
    _, run, _ = edited
    said = text_of(atlas.layout(run=run.id, heads="L5H1,L5H5"))
    assert "2 edits" in said and f"/edits?run={run.id}" in said and "2 heads framed" in said
    assert "edits?run" not in text_of(atlas.layout(run="other"))
    assert "Expected a head from L0H0 to L11H11" in text_of(atlas.layout(run=run.id, heads="L5H1,L99H0"))
    place = {
        "run": run.id,
        "probe": "induction",
        "part": "",
        "stratum": "length=64",
        "tower": "text",
        "minus": "nothing",
    }
    for view, count in (("one", 1), ("all", 2)):
        figure, *_ = atlas.draw(place, "full", False, view, 0, "light", None, "L5H1,L5H5")
        frames = traces(figure, "marked")
        assert [len(one.x) for one in frames] == [2 * 6] * count
        assert frames[0].x[:2] == (0.5, 1.5) and frames[0].y[:2] == (4.5, 4.5)


def test_runs_of_edits_open_their_page(edited):
    store, run, made = edited
    pages = {row["run_id"]: row["page"] for row in runs_page.listing(runs_page.headers(store))}
    assert pages[run.id] == "/atlas" and {pages[one] for one in made[0].values()} == {"/edits"}


def test_a_model_without_edits_is_told_the_command(inside, edited):
    store, *_ = edited
    other = store.run("other")
    said = text_of(edits.layout(run=other.id))
    assert "No edits of other yet" in said and "All 2 edits of this store" in said
    wanted = f"headatlas edit other --from {other.id}:induction:top=4 --data repeats --store {store.path}"
    assert wanted in said and edit_commands(other, str(store.path)) == [wanted]


def test_an_empty_store_is_told_both_commands(tmp_path):
    open_store(tmp_path / "runs", create=True)
    with make_app(tmp_path / "runs").server.test_request_context("/"):
        said = text_of(edits.layout())
        assert "No edits yet" in said and "headatlas measure organism:pico-lm --probes retrieval" in said
        assert "--from latest:retrieval/score:top=4" in said


@pytest.mark.parametrize(
    ("query", "message"),
    [({"edit": "nope"}, "No run 'nope'"), ({"edit": "other"}, "stands in no causal report; `headatlas edit` writes")],
)
def test_a_wrong_url_gives_a_message_in_the_page(inside, query, message):
    said = text_of(edits.layout(**query))
    assert "Nothing to show here" in said and message in said


def test_the_python_of_the_page_draws_its_picture(edited, report):
    store, _, made = edited
    code = python_for_report(store.path, made[0]["edited"])
    found: dict = {}
    exec(code.replace("\nha.causal_figure", "\nfigure = ha.causal_figure"), found)
    assert found["figure"].to_dict() == causal_figure(report).to_dict()


def test_a_report_is_listed_once_and_the_latest_first(edited):
    store, _, made = edited
    assert [one.id for one in reports_in(store.path)] == [made[1]["edited"], made[0]["edited"]]


def curves(**orders):
    """Curves of 4 heads from the means at 0, 1, 2 and 4 of them."""
    tables = [
        pd.DataFrame({"reading": name, "heads": [0, 1, 2, 4], "share": [0, 0.25, 0.5, 1], "mean": mean,
                      "ci_low": np.array(mean) - 0.1, "ci_high": np.array(mean) + 0.1})
        for name, mean in orders.items()
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


MADE = {"good": [1, 0, 0, 0], "bad": [1, 1, 1, 0], "random": [1, 0.5, 0.5, 0]}


def test_a_budget_names_the_area_between_the_curves():
    table = curves(**MADE, **{"random 0": [1, 0, 0, 0], "random 1": [1, 1, 1, 0]})
    good = 0.25 * 0.25 + 0.5 * 0.25 + 0.25 * 0.5
    assert area(table[table["reading"] == "good"], table[table["reading"] == "random"]) == pytest.approx(good)
    figure = budget_figure(table, "exact_match")
    lines = traces(figure, "order")
    assert [line.name for line in lines] == [
        "random orders, mean of 2",
        "good: area +0.312, 1 of 2 random orders reach it",
        "bad: area -0.312, 2 of 2 random orders reach it",
    ]
    assert list(lines[1].x) == [0, 1, 2, 4] and list(lines[1].y) == [1, 0, 0, 0]
    assert list(lines[1].error_y.array) == pytest.approx([0.1] * 4)
    faint = traces(figure, "single")
    assert [list(line.y) for line in faint] == [[1, 0, 0, 0], [1, 1, 1, 0]] and faint[0].opacity < 0.5
    assert [line.showlegend for line in faint] == [True, False]


def test_of_a_loss_the_sign_is_turned_round():
    table = curves(good=[0, 2, 2, 2], random=[0, 1, 1, 2])
    figure = budget_figure(table, "answer_loss", ["good"])
    assert traces(figure, "order")[1].name == "good: area +0.625"
    assert len(traces(figure, "between")) == 1, "one reading alone has its area shaded"
    assert figure.layout.yaxis.title.text == "answer loss, lower is better"


def test_only_the_best_of_many_readings_are_drawn_and_unknown_ones_refused():
    many = {f"r{number}": [1, 1 - number / 10, 0, 0] for number in range(9)}
    figure = budget_figure(curves(**many, random=MADE["random"]), "exact_match")
    drawn = [line.name.partition(":")[0] for line in traces(figure, "order")[1:]]
    assert drawn == ["r8", "r7", "r6", "r5", "r4", "r3"] and len(drawn) == len(CLASSES)
    assert figure.layout.title.text.endswith("6 of 9 readings")
    with pytest.raises(UserError, match=r"the curves have no reading 'goood'\. Did you mean 'good'"):
        budget_figure(curves(**MADE), "exact_match", ["goood"])


def test_ticks_are_spaced():
    assert spaced([0, 1, 2, 4, 8, 16, 32, 48]) == [0, 4, 8, 16, 32, 48]
    assert spaced([0, 1, 2, 4]) == [0, 1, 2, 4]


def test_a_dark_figure_is_dark(report):
    for figure in (causal_figure(report, scheme="dark"), budget_figure(curves(**MADE), "exact_match", scheme="dark")):
        assert json.loads(figure.to_json())["layout"]["template"]["layout"]["paper_bgcolor"] == "#161b22"
