"""Fixtures: an invented store, its dashboard served in a thread, and a browser page that must stay quiet."""

import logging
import shutil
from contextlib import contextmanager
from threading import Thread

import pytest
from headatlas.data.store import open_store

from .invented import write_budget, write_edit, write_run

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def store_path(tmp_path_factory):
    """A finished run with 12 x 12 heads, an interrupted one with shared kv heads and a probe with parts."""
    path = tmp_path_factory.mktemp("dashboards") / "runs"
    write_run(
        path, "tiny/shared", layers=4, heads=8, kv_heads=2, examples=48, chunks=2, probes=("induction", "group_mass")
    )
    write_run(path, "gpt2", examples=48, gaps=(11,))
    return path


@pytest.fixture(scope="session")
def run(store_path):
    return open_store(store_path).run("gpt2")


@pytest.fixture(scope="session")
def shared(store_path):
    return open_store(store_path).run("shared")


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A run of 4 x 8 heads whose random weights show a quarter of each value, but no entropy."""
    path, shape = tmp_path_factory.mktemp("compared") / "runs", {"layers": 4, "heads": 8, "examples": 48}
    parent = write_run(path, "small", **shape, probes=("induction", "previous_token", "entropy"))
    write_run(path, "small", **shape, probes=("induction", "previous_token"), parent=parent, share=0.25)
    return open_store(path).run()


@pytest.fixture(scope="session")
def edited(tmp_path_factory):
    """A store with a run of 12 x 12 heads, and two edits of its model: condition -> run id of each."""
    path = tmp_path_factory.mktemp("edited") / "runs"
    chosen_by = write_run(path, "gpt2", examples=48, probes=("induction", "previous_token"))
    made = [write_edit(path, chosen_by=chosen_by), write_edit(path, kind="mean")]
    write_run(path, "other", layers=2, heads=2, examples=16, probes=("induction",))
    return open_store(path), open_store(path).run(chosen_by), made


@pytest.fixture(scope="session")
def budgeted(tmp_path_factory):
    """A store with a head budget alone, and its run."""
    path = tmp_path_factory.mktemp("budgeted") / "runs"
    write_budget(path)
    return open_store(path).run()


@contextmanager
def served(path):
    """The address of a dashboard over a store, served in a thread."""
    from headatlas.dashboards.app import make_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, make_app(path).server, threaded=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def site(store_path):
    with served(store_path) as address:
        yield address


@pytest.fixture(scope="session")
def compared_site(compared):
    with served(compared.path.parent) as address:
        yield address


@pytest.fixture(scope="session")
def edited_site(edited):
    with served(edited[0].path) as address:
        yield address


@pytest.fixture(scope="session")
def budgeted_site(budgeted):
    with served(budgeted.path.parent) as address:
        yield address


@pytest.fixture
def fresh(tmp_path):
    """An empty store and the address of its dashboard."""
    open_store(tmp_path / "runs", create=True)
    with served(tmp_path / "runs") as address:
        yield tmp_path / "runs", address


@pytest.fixture(scope="session")
def browser():
    found = next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium found (looked for {', '.join(CHROMIUMS)})")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
    opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--headless"])
    yield opened
    opened.close()
    playwright.stop()


@pytest.fixture(scope="session")
def context(browser):
    """One window for all tests, so that the scripts of the page are cached after the first."""
    return browser.new_context(viewport={"width": 1440, "height": 900})


@pytest.fixture
def open_page(context, site):
    """Opens a page of the dashboard; afterwards no console error and no request to elsewhere may have happened."""
    pages, troubles = [], []

    def note_request(request):
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            troubles.append(f"request left the machine: {request.url}")

    def visit(path, *, scheme="light"):
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(20000)
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda said: troubles.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(f"page error: {error.stack or error}"))
        page.on("request", note_request)
        page.goto(path if path.startswith("http") else site + path)
        return page

    yield visit
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.close()
    assert troubles == []
