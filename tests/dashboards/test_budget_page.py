"""Head budgets on the page Edits: the heads of each step, where an order ends, the way back to a notebook."""

import pytest
from headatlas.dashboards.app import make_app
from headatlas.dashboards.budget import budget_figure, step_words
from headatlas.dashboards.budgeted import budget_in
from headatlas.dashboards.export import python_for_budget
from headatlas.dashboards.pages import edits
from headatlas.data.budget import stored_budget
from headatlas.data.errors import UserError
from headatlas.data.store import open_store

from .invented import write_budget, write_edit
from .test_app import text_of
from .test_browser import wait_text


@pytest.fixture
def figure(budgeted):
    return budget_figure(stored_budget(budgeted))


def line_of(figure, name):
    return next(one for one in figure.data if (one.name or "").startswith(name))


def test_each_step_names_the_heads_it_adds(figure):
    line = line_of(figure, "induction")
    assert line.text[:3] == ("", "<br>adds 1:<br>L0H0", "<br>adds 1:<br>L0H1")
    assert line.text[3] == "<br>adds 2; the reading's order has ended, 2 are random:<br>L1H0, L1H1"
    assert "%{text}" in line.hovertemplate
    assert line_of(figure, "random orders").text == ("",) * 4, "the mean of several orders adds no single heads"


def test_where_an_order_ends_early_points_are_open_and_the_legend_says_it(figure):
    line = line_of(figure, "induction")
    assert line.marker.symbol == ("circle", "circle", "circle", "circle-open")
    assert line.name.endswith("names 2 of 4 heads")


def test_many_heads_are_counted_on_lines_of_six():
    class Row:
        added, heads, named = " ".join(f"L0H{head}" for head in range(30)), 30, 30

    said = step_words(Row)
    assert said.startswith("<br>adds 30:<br>L0H0, L0H1, L0H2, L0H3, L0H4, L0H5,<br>L0H6") and "and 6 more" in said


def test_a_table_of_curves_needs_its_score(budgeted):
    with pytest.raises(UserError, match="does not say its score"):
        budget_figure(stored_budget(budgeted).curves)


def test_the_page_says_what_was_edited_in_which_orders(budgeted):
    with make_app(budgeted.path.parent).server.test_request_context("/"):
        said = text_of(edits.layout())
        drawn, style, words = edits.draw("dark", True, budgeted.id)
    assert "Head budget" in said and "1 of readings, 2 random" in said and "induction after 2; the other heads" in said
    assert words.startswith("The order of induction finds the heads that matter best: area +")
    assert style["height"] == drawn.layout.height and "<br>" in line_of(drawn, "induction").name


def test_the_python_of_the_page_draws_the_budget(budgeted, figure):
    found: dict = {}
    exec(python_for_budget(budgeted).replace("\nha.budget_figure", "\nfigure = ha.budget_figure"), found)
    assert found["figure"].to_json() == figure.to_json()


def test_reports_and_budgets_stand_in_one_picker(tmp_path):
    made, budget = write_edit(tmp_path / "runs"), write_budget(tmp_path / "runs")
    with make_app(tmp_path / "runs").server.test_request_context("/"):
        said = text_of(edits.layout(edit=made["edited"]))
        assert "Head budgets" in said and "zero · 1 reading · exact match on repeats" in said
        assert f"edit={budget}" in said, "the next edit is the budget"
        assert budget_in(open_store(tmp_path / "runs"), budget).run.id == budget


def test_a_budget_is_drawn_in_the_browser_and_fits_a_narrow_window(open_page, budgeted_site):
    page = open_page(f"{budgeted_site}/edits")
    page.wait_for_selector("#edits-graph .scatterlayer .points path")
    wait_text(page, "#edits-card h2", "Head budget")
    page.locator("#edits-table .ag-cell", has_text="induction").wait_for()
    page.evaluate(
        """(() => { const graph = document.querySelector('#edits-graph .js-plotly-plot');
        const at = graph.data.findIndex((one) => (one.name || '').startsWith('induction'));
        Plotly.Fx.hover(graph, [{ curveNumber: at, pointNumber: 3 }]); })()"""
    )
    wait_text(page, "#edits-graph .hoverlayer", "adds 2; the reading's order has ended")
    page.set_viewport_size({"width": 420, "height": 900})
    try:
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.set_viewport_size({"width": 1440, "height": 900})
