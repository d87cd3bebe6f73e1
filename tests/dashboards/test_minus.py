"""The atlas less a baseline, and baselines on the pages: the numbers, the words, what is refused."""

import json

import numpy as np
import pytest
from headatlas.dashboards.app import make_app
from headatlas.dashboards.cells import colour_limits
from headatlas.dashboards.figures import atlas as atlas_figure
from headatlas.dashboards.pages import atlas
from headatlas.dashboards.pages import runs as runs_page
from headatlas.dashboards.readings import read
from headatlas.dashboards.theme import DIVERGING
from headatlas.dashboards.twin import columns_of, rows_of
from headatlas.dashboards.wording import summary
from headatlas.data.errors import UserError
from headatlas.data.store import open_store

from .test_browser import wait_text, wait_url

PLACE = {"probe": "induction", "part": "", "stratum": "length=64", "tower": "text"}


@pytest.fixture
def inside(compared):
    with make_app(compared.path.parent).server.test_request_context("/"):
        yield


def text_of(component):
    return json.dumps(component.to_plotly_json(), default=lambda c: c.to_plotly_json(), ensure_ascii=False)


def cells_of(figure):
    return next(found for found in figure.data if found.meta == "cells")


def test_the_value_is_the_difference_and_the_largest_of_either_sign_comes_first(compared):
    plain, less = read(compared, "previous_token"), read(compared, "previous_token", minus="random")
    np.testing.assert_allclose(less.table["value"], 0.75 * plain.table["value"], rtol=1e-5)
    np.testing.assert_allclose(less.table["mean"], plain.table["value"], rtol=1e-6)
    np.testing.assert_allclose(less.table["baseline"], 0.25 * plain.table["value"], rtol=1e-5)
    heads = 0.25 * plain.table["value"]
    np.testing.assert_allclose(less.table["effect"], (plain.table["value"] - heads.mean()) / heads.std(), rtol=1e-4)
    assert less.title == "Previous token − random weights"
    assert less.signed
    assert less.bounds == (-1, 1)
    flipped = less.table.assign(value=-less.table["value"])
    assert less.top(3)["name"].tolist() == plain.top(3)["name"].tolist()
    assert less.table["rank"].tolist() == flipped["value"].abs().rank(ascending=False, method="min").tolist()


def test_colours_diverge_evenly_around_zero(compared):
    less = read(compared, "previous_token", minus="random")
    most = less.table["value"].abs().max()
    assert colour_limits(less) == (-most, most, "even to both sides of 0, up to the largest difference")
    assert colour_limits(less, "bounds") == (-1, 1, "all differences the probe can have")
    cells = cells_of(atlas_figure(compared, "previous_token", minus="random"))
    assert (cells.zmin, cells.zmax) == (-most, most)
    assert cells.colorscale == DIVERGING
    assert cells_of(atlas_figure(compared, "previous_token")).colorscale[0][1] == "#440154"


def test_pointing_at_a_head_says_what_was_subtracted(compared):
    less = read(compared, "previous_token", minus="random")
    row = less.table[less.table["name"] == "L1H4"].iloc[0]
    said = cells_of(atlas_figure(compared, "previous_token", minus="random")).hovertext[1, 4]
    assert said == (
        f"<b>L1H4</b><br>Previous token − random weights <b>+{row['value']:.3f}</b> mass"
        f"<br>mean {row['mean']:.3f} · random weights {row['baseline']:.3f}"
        f"<br>95 % interval of the difference +{row['low']:.3f} to +{row['high']:.3f}"
        f"<br>effect +{row['effect']:.1f} sd · q below 0.001<br>n 16 · rank {int(row['rank'])} of 32 by size"
    )
    assert summary(less).endswith("32 of 32 heads differ from random weights at q below 0.05 (n 16).")


def test_the_table_twin_has_effect_and_q(compared):
    less, plain = read(compared, "induction", minus="random"), read(compared, "induction")
    assert [one["field"] for one in columns_of(less)] == ["rank", "name", "value", "low", "high", "effect", "q"]
    assert [one["field"] for one in columns_of(plain)][-1] == "reliability"
    assert rows_of(less, 1)[0].keys() == {"rank", "name", "value", "low", "high", "effect", "q"}


def test_the_panel_of_a_head_shows_both_means(inside, compared):
    said = text_of(
        atlas.show_chosen({"run": compared.id, **PLACE, "probe": "previous_token", "minus": "random"}, "L1H4")
    )
    row = read(compared, "previous_token", minus="random").table.set_index("name").loc["L1H4"]
    for words in ("Mean", "Random weights", "Effect", "below 0.001", "Rank by size", f"+{row['value']:.3f}"):
        assert words in said
    for value in (row["mean"], row["baseline"]):
        assert f'"{value:.3f}"' in said
    plain = text_of(atlas.show_chosen({"run": compared.id, **PLACE, "minus": "nothing"}, "L1H4"))
    assert "Percentile" in plain


def test_a_reading_that_the_baseline_lacks_says_how_to_measure_it(inside, compared):
    place = {"run": compared.id, **PLACE, "probe": "entropy", "minus": "random"}
    figure, _, words = atlas.draw(place, "full", False, "one", 0, "light", None)
    assert "hold no 'entropy': `headatlas measure" in words
    assert figure.layout.annotations[0].text == words
    _, _, words = atlas.draw({**place, "probe": "induction"}, "full", False, "all", 0, "light", None)
    assert words.startswith("2 readings less random weights at length 64")


def test_the_url_names_what_is_subtracted(inside, compared):
    for query, message in [
        ({"minus": "shuffled"}, f"Run {compared.id} has no baseline 'shuffled' (shuffled tokens); it has random."),
        ({"minus": "noise"}, "Expected minus= to be one of nothing, random, shuffled, got 'noise'"),
    ]:
        said = text_of(atlas.layout(run=compared.id, **query))
        assert "Nothing to show here" in said
        assert message in said
    assert '"value": "random"' in text_of(atlas.layout(run=compared.id, minus="random"))


def test_a_baseline_says_whose_it_is(inside, compared):
    base = compared.baseline("random")
    said = text_of(atlas.layout(run=base.id))
    assert f"Baseline of {compared.id}: open that run" in said
    assert f"/atlas?run={compared.id}" in said
    assert "Baseline of" not in text_of(atlas.layout(run=compared.id))
    assert "small · repeats:length=64+128+256 · random weights" in said
    rows = {row["run_id"]: row for row in runs_page.listing(runs_page.headers(open_store(compared.path.parent)))}
    assert (rows[base.id]["baseline"], rows[base.id]["parent"]) == ("random weights", compared.id)
    assert (rows[compared.id]["baseline"], rows[compared.id]["parent"]) == (None, None)


def test_the_command_of_a_baseline_asks_for_baselines():
    built = {"model": {"name": "gpt2"}, "data": {"spec": "repeats", "examples": 8}, "probes": {"a": {}}}
    built["parents"] = [{"run": "x", "relation": "baseline-of", "kind": "random"}]
    assert runs_page.resume_command(built, "runs") == (
        "headatlas measure gpt2 --probes a --data repeats --examples 8 --seed 0 --store runs --baselines"
    )


def test_figures_refuse_a_baseline_that_is_not_there(run):
    with pytest.raises(UserError, match=r"has no baseline 'random' .*--baselines` measures it"):
        atlas_figure(run, "induction", minus="random")


@pytest.mark.browser
def test_the_picker_subtracts_and_the_url_keeps_it(open_page, compared, compared_site):
    page = open_page(f"{compared_site}/atlas?run={compared.id}&probe=previous_token&head=L1H4")
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    page.locator("#atlas-minus").click()
    page.get_by_role("option", name="Random weights").click()
    wait_text(page, "#atlas-card h2", "Previous token − random weights")
    wait_text(page, "#atlas-chosen", "Random weights")
    wait_url(page, "minus=random")
    wait_text(page, ".ha-table-twin .ag-header", "Effect")
    page.reload()
    wait_text(page, "#atlas-graph-caption", "heads differ from random weights at q below 0.05")
    assert page.locator("#atlas-minus").input_value() == "Random weights"


@pytest.mark.browser
def test_a_baseline_leads_to_its_run_and_has_nothing_to_subtract(open_page, compared, compared_site):
    page = open_page(f"{compared_site}/atlas?run={compared.baseline('random').id}")
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    assert not page.locator("#atlas-minus").is_visible()
    page = open_page(compared_site)
    page.get_by_role("link", name="random weights").click()
    wait_url(page, f"/atlas?run={compared.id}")
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    assert page.locator("#atlas-minus").is_visible()
