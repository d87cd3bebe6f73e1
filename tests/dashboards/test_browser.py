"""The pages in a real browser: each test also asserts that nothing failed and that no request left the machine."""

import re

import pytest

from .invented import write_run

pytestmark = pytest.mark.browser


def wait_url(page, *parts):
    page.wait_for_function("parts => parts.every(part => location.href.includes(part))", arg=list(parts))


def wait_text(page, selector, text):
    page.wait_for_function(
        "([selector, text]) => (document.querySelector(selector)?.textContent || '').includes(text)",
        arg=[selector, text],
    )


def open_atlas(open_page, run, query="", **options):
    """The atlas with its figure drawn, and where on the screen a cell is."""
    page = open_page(f"/atlas?run={run.id}{query}", **options)
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    page.wait_for_selector(".ha-table-twin .ag-row")

    def cell(layer, head):
        box = page.locator("#atlas-graph .nsewdrag").first.bounding_box()
        return box["x"] + box["width"] * (head + 0.5) / 12, box["y"] + box["height"] * (1 - (layer + 0.5) / 12)

    return page, cell


def point_at(page, place):
    page.mouse.move(*place)
    page.wait_for_selector("#atlas-graph .hovertext")


def test_runs_open_their_atlas(open_page):
    page = open_page("/")
    page.wait_for_selector(".ag-row")
    assert page.locator(".ag-center-cols-container .ag-row").count() == 2
    assert "headatlas measure tiny/shared" in page.locator(".ha-unfinished code").inner_text()
    page.get_by_label("Filter runs").fill("gpt2")
    page.wait_for_function("document.querySelectorAll('.ag-center-cols-container .ag-row').length === 1")
    page.get_by_role("link", name="gpt2").click()
    wait_text(page, "h1", "Atlas")
    wait_url(page, "/atlas?run=gpt2-repeats", "probe=", "stratum=length%3D64")


def test_a_run_appears_while_the_page_is_open(open_page, fresh):
    path, address = fresh
    page = open_page(address)
    wait_text(page, ".ha-first-steps", "headatlas measure organism:pico-lm")
    write_run(path, "tiny/new", layers=2, heads=2, examples=16, probes=("induction",))
    page.get_by_role("link", name="tiny/new").wait_for()
    assert not page.locator(".ha-first-steps").is_visible()


def test_a_cell_explains_itself_is_selected_and_opens(open_page, run):
    page, cell = open_atlas(open_page, run, "&probe=induction")
    assert page.get_by_role("group", name="Atlas of heads, arrow keys move").count() == 1
    wait_text(page, "figcaption", "Induction over 12 layers and 12 heads at length 64: median")
    assert page.locator("#atlas-chosen").get_attribute("aria-live") == "polite"
    point_at(page, cell(5, 1))
    said = page.locator("#atlas-graph .hoverlayer").text_content()
    assert re.search(r"L5H1Induction 0\.\d{3} mass95 % interval 0\.\d{3} – 0\.\d{3}n 16 · rank [1-4] of 144", said)
    page.mouse.click(*cell(5, 1))
    wait_text(page, "#atlas-chosen h2", "L5H1")
    wait_text(page, "#atlas-chosen .ha-others li", "Induction")
    wait_url(page, "head=L5H1")
    point_at(page, cell(7, 2))
    page.mouse.dblclick(*cell(7, 2))
    wait_text(page, "h1", "L7H2")
    wait_url(page, "/head?run=gpt2", "head=L7H2", "probe=induction")


def test_undefined_cells_can_be_selected_and_say_so(open_page, run):
    page, cell = open_atlas(open_page, run, "&probe=entropy")
    point_at(page, cell(11, 3))
    page.mouse.click(*cell(11, 3))
    wait_text(page, "#atlas-chosen", "Entropy is not defined here")


def test_the_keyboard_reaches_everything(open_page, run):
    page, _ = open_atlas(open_page, run, "&probe=induction&head=L5H1")
    page.keyboard.press("ArrowUp")
    wait_text(page, "#atlas-chosen h2", "L6H1")
    page.keyboard.press("ArrowRight")
    wait_text(page, "#atlas-chosen h2", "L6H2")
    page.keyboard.press("]")
    wait_text(page, "#atlas-card h2", "Previous token")
    page.keyboard.press("[")
    wait_text(page, "#atlas-card h2", "Induction")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.keyboard.press("Enter")
    wait_text(page, "h1", "L6H2")
    page.keyboard.press("ArrowRight")
    wait_text(page, "h1", "L6H3")
    page.keyboard.press("/")
    page.keyboard.type("l5h5")
    page.keyboard.press("Enter")
    wait_text(page, "h1", "L5H5")
    page.keyboard.press("Escape")
    page.locator("#search").blur()
    page.keyboard.press("Escape")
    wait_text(page, "h1", "Atlas")


def test_the_url_restores_the_atlas(open_page, run):
    query = "&probe=previous_token&stratum=length%3D128&head=L1H4&top=3&limits=bounds&flip=1"
    page, _ = open_atlas(open_page, run, query)
    wait_text(page, "#atlas-chosen h2", "L1H4")
    wait_text(page, "#atlas-top-words", "Top 3 of 144")
    assert page.locator("#atlas-stratum").input_value() == "length 128"
    page.wait_for_function("document.querySelectorAll('.ha-table-twin .ag-center-cols-container .ag-row').length === 3")
    layout = page.evaluate("document.querySelector('#atlas-graph .js-plotly-plot').layout")
    assert layout["yaxis"]["range"] == [11.5, -0.5]
    cells = page.evaluate(
        "(({zmin, zmax}) => [zmin, zmax])(document.querySelector('#atlas-graph .js-plotly-plot').data[0])"
    )
    assert cells == [0, 1]
    wait_url(page, "probe=previous_token", "top=3", "limits=bounds", "flip=1", "head=L1H4")


def test_all_readings_at_once(open_page, run):
    page, _ = open_atlas(open_page, run, "&view=all")
    wait_text(page, "#atlas-graph-caption", "11 readings at length 64")
    assert page.locator("#atlas-graph .heatmaplayer image").count() == 11


def test_parts_have_a_picker_of_their_own(open_page, shared):
    page = open_page(f"/atlas?run={shared.id}&probe=group_mass&part=rest")
    wait_text(page, "#atlas-card h2", "Group mass · rest")
    wait_text(page, ".ha-aside", "partial: interrupted")
    page.locator("#atlas-next").click()
    wait_text(page, "#atlas-card h2", "Induction")
    assert not page.locator("#atlas-part").is_visible()


def test_the_head_page_shows_its_evidence(open_page, run):
    page = open_page(f"/head?run={run.id}&head=L5H1")
    page.wait_for_selector("#head-graph .barlayer .bars")
    wait_text(page, "#head-graph-caption", "of 144 heads")
    assert page.locator(".ha-readings [aria-expanded=true]").inner_text().startswith("Induction")
    assert page.locator(".ha-examples tbody td").count() == 36
    page.get_by_role("button", name=re.compile("Previous token")).click()
    wait_url(page, "probe=previous_token")
    wait_text(page, "#head-graph .xtitle, #head-graph .x2title", "Previous token")
    page.reload()
    page.wait_for_selector("#head-graph .barlayer .bars")
    assert page.locator(".ha-readings [aria-expanded=true]").inner_text().startswith("Previous token")


@pytest.mark.parametrize("path", ["/", "/atlas", "/head?head=L5H1"])
def test_dark_reaches_every_component(open_page, path):
    page = open_page(path, scheme="dark")
    page.wait_for_selector(".ag-row, #head-graph .bars", state="attached")
    page.wait_for_function(
        "[...document.querySelectorAll('.ag-root-wrapper, .js-plotly-plot .main-svg')].length > 0"
        " && document.documentElement.dataset.mantineColorScheme === 'dark'"
    )
    colours = page.evaluate(
        """() => [...document.querySelectorAll('body, .ha-panel, .ag-root-wrapper, .js-plotly-plot .main-svg:first-child, input, header')]
            .map(e => getComputedStyle(e).backgroundColor).filter(c => c !== 'rgba(0, 0, 0, 0)')"""
    )
    assert colours
    for colour in colours:
        assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 80, colour


def test_the_colour_choice_is_kept(open_page):
    page = open_page("/atlas", scheme="light")
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    page.locator("#scheme-choice label").nth(2).click()
    page.wait_for_function("document.documentElement.dataset.mantineColorScheme === 'dark'")
    page.wait_for_function(
        "document.querySelector('.js-plotly-plot').layout.template.layout.paper_bgcolor === '#161b22'"
    )
    page.reload()
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    assert page.evaluate("document.documentElement.dataset.mantineColorScheme") == "dark"
    assert page.evaluate("document.querySelector('.js-plotly-plot').layout.template.layout.paper_bgcolor") == "#161b22"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/atlas?run=nope", "No run 'nope'"),
        ("/atlas?probe=inductoin", "Did you mean 'induction'"),
        ("/head?head=L99H99", "Expected a head from L0H0 to L11H11"),
        ("/elsewhere", "Expected the address of a page"),
    ],
)
def test_unknown_ids_are_answered_in_the_page(open_page, path, message):
    page = open_page(path)
    wait_text(page, "[role=alert]", message)
    page.get_by_role("link", name="All runs").click()
    wait_text(page, "h1", "Runs")


def test_an_edit_is_read_changed_and_led_back_to_the_atlas(open_page, edited_site, edited):
    _, run, made = edited
    page = open_page(f"{edited_site}/atlas?run={run.id}")
    page.get_by_role("link", name="2 edits").click()
    wait_text(page, "h1", "Edits")
    wait_text(page, "#edits-card h2", "Zero of L5H1, L5H5")
    wait_url(page, "/edits?run=gpt2", f"edit={made[0]['edited']}")
    page.wait_for_selector("#edits-graph .scatterlayer .points path")
    wait_text(page, "#edits-graph-caption", "Exact match, with zero of L5H1, L5H5: 0.100, unedited 0.900")
    page.locator("#edits-table .ag-cell", has_text="-0.800").wait_for()
    page.keyboard.press("[")
    wait_text(page, "#edits-card h2", "Mean of L5H1, L5H5")
    wait_url(page, f"edit={made[1]['edited']}")
    page.keyboard.press("]")
    wait_text(page, "#edits-card h2", "Zero of L5H1, L5H5")
    page.locator("#edits-edit").click()
    page.get_by_role("option", name="mean of L5H1, L5H5").click()
    wait_text(page, "#edits-card h2", "Mean of L5H1, L5H5")
    page.keyboard.press("Escape")
    wait_text(page, "h1", "Atlas")
    wait_url(page, "heads=L5H1%2CL5H5")
    page.wait_for_selector("#atlas-graph .heatmaplayer image")
    page.get_by_role("link", name="2 heads framed").click()
    page.wait_for_function("!location.href.includes('heads=')")


@pytest.mark.parametrize("kind", ["CSV", "PNG"])
def test_an_edit_can_be_taken_away(open_page, edited_site, edited, kind):
    _, _, made = edited
    page = open_page(f"{edited_site}/edits?edit={made[0]['edited']}")
    page.wait_for_selector("#edits-graph .scatterlayer .points path")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as taken:
        page.get_by_role("menuitem", name=kind).click()
    assert made[0]["edited"] in taken.value.suggested_filename


def test_edits_are_dark_where_the_system_is(open_page, edited_site):
    page = open_page(f"{edited_site}/edits", scheme="dark")
    page.wait_for_selector("#edits-graph .scatterlayer .points path")
    page.wait_for_function(
        "document.querySelector('#edits-graph .js-plotly-plot').layout.template.layout.paper_bgcolor === '#161b22'"
    )


def test_edits_fit_a_narrow_window(open_page, edited_site):
    page = open_page(f"{edited_site}/edits")
    page.wait_for_selector("#edits-graph .scatterlayer .points path")
    page.set_viewport_size({"width": 420, "height": 900})
    try:
        page.wait_for_function("!document.querySelector('#edits-graph .js-plotly-plot').layout.yaxis.showticklabels")
        page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
        plot = page.locator("#edits-graph .cartesianlayer .bglayer, #edits-graph .gridlayer").first.bounding_box()
        assert plot["width"] > 280, "the scale of the figure has most of the width"
        said = page.locator("#edits-graph .annotation", has_text="edited, L5H1, L5H5").first.bounding_box()
        assert said["x"] >= 0 and said["x"] + said["width"] <= 420
        inside = "[...document.querySelectorAll('#edits-table .ag-center-cols-viewport')].map(v => v.scrollWidth - v.clientWidth)"
        assert page.evaluate(inside)[0] > 0, "the table scrolls inside itself"
        rail = page.locator(".mantine-AppShell-navbar").bounding_box()
        assert (rail["x"], rail["width"]) == (0, 420) and rail["y"] + rail["height"] == 900
        for name in ("Runs", "Atlas"):
            page.get_by_role("link", name=name, exact=True).click()
            wait_text(page, "h1", name)
            page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    finally:
        page.set_viewport_size({"width": 1440, "height": 900})


def test_a_run_of_an_edit_opens_its_report(open_page, edited_site):
    page = open_page(edited_site)
    page.wait_for_selector(".ag-row")
    page.get_by_label("Filter runs").fill("random: 5")
    page.locator(".ha-run-link").first.click()
    wait_text(page, "h1", "Edits")
