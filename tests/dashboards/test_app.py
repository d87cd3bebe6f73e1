"""The app without a browser: what it imports, what it refuses, how it finds a port, what it writes for people."""

import argparse
import json
import socket
import subprocess
import sys

import pytest
from headatlas.dashboards.app import free_port, make_app, serve
from headatlas.dashboards.frame import navigable
from headatlas.dashboards.pages import atlas, head
from headatlas.dashboards.pages import runs as runs_page
from headatlas.dashboards.reading import row_in
from headatlas.dashboards.readings import read
from headatlas.dashboards.state import link
from headatlas.dashboards.verbs import serve_arguments
from headatlas.data.errors import UserError
from headatlas.data.store import open_store

from .invented import EVERY


@pytest.fixture
def inside(store_path):
    """A request context of an app over the invented store."""
    with make_app(store_path).server.test_request_context("/"):
        yield


def text_of(component):
    return json.dumps(component.to_plotly_json(), default=lambda c: c.to_plotly_json(), ensure_ascii=False)


def test_the_dashboard_imports_no_torch(store_path):
    code = (
        "import sys; from headatlas.dashboards.app import make_app; make_app(sys.argv[1]); "
        "print([m for m in ('torch', 'transformers', 'transformer_lens', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rail_is_made_from_the_registry(inside):
    assert [entry["name"] for entry in navigable()] == ["Runs", "Atlas", "Head", "Edits"]


def test_two_apps_can_live_in_one_process(store_path):
    first, second = make_app(store_path), make_app(store_path)
    for app in (first, second):
        answer = app.server.test_client().get("/_dash-dependencies").get_json()
        assert any("atlas-graph.figure" in entry["output"] for entry in answer)


@pytest.mark.parametrize(
    ("page", "query", "message"),
    [
        (atlas, {"run": "nope"}, "No run 'nope'"),
        (atlas, {"run": "../../etc/passwd"}, "No run '../../etc/passwd'"),
        (atlas, {"probe": "inductoin"}, "Did you mean 'induction'"),
        (atlas, {"head": "L12H0"}, "Expected a head from L0H0 to L11H11"),
        (atlas, {"head": "<script>"}, "Expected a head like L5H1"),
        (atlas, {"stratum": "length=7"}, "Expected stratum= to be one of length=64, length=128, length=256"),
        (atlas, {"limits": "wild"}, "Expected limits= to be one of full, robust, bounds"),
        (atlas, {"top": "-3"}, "Expected top= to be a whole number from 0 to 50"),
        (head, {"head": "L99H99"}, "Expected a head from L0H0 to L11H11"),
        (head, {"head": "L5H1", "probe": "nope"}, "Expected a probe of this run, got 'nope'"),
        (head, {"head": "L5H1", "probe": "induction:bos"}, "Expected probe= to be one of"),
    ],
)
def test_a_wrong_url_gives_a_message_in_the_page(inside, page, query, message):
    said = text_of(page.layout(**{"run": "gpt2", **query}))
    assert "Nothing to show here" in said
    assert message in said


def test_unknown_query_names_and_repeated_ones_are_harmless(inside):
    assert "Nothing to show" not in text_of(atlas.layout(run=["gpt2", "x"], utm_source="mail"))


def test_a_head_card_explains_each_reading(inside, run):
    rank = int(row_in(read(run, "induction"), "L5H1")["rank"])
    said = text_of(head.layout(run="gpt2", head="L5H1"))
    for words in (
        "Formula",
        "High means",
        "Does not show",
        "Source",
        "percentile",
        f"{rank} of 144",
        "Olsson et al. 2022",
    ):
        assert words in said
    assert said.count("Does not show") == len(EVERY)


def test_an_empty_store_teaches_the_first_steps(tmp_path):
    open_store(tmp_path / "runs", create=True)
    with make_app(tmp_path / "runs").server.test_request_context("/"):
        said = text_of(runs_page.layout())
        assert "headatlas measure organism:pico-lm" in said
        assert "headatlas serve" in said
        assert "Measure something first" in text_of(atlas.layout())


def test_runs_are_listed_with_what_they_lack(store_path):
    rows = {row["model"]: row for row in runs_page.listing(runs_page.headers(open_store(store_path)))}
    assert rows["gpt2"]["status"] == "done"
    assert rows["gpt2"]["progress"] == 100
    assert rows["gpt2"]["probes"] == len(EVERY)
    assert rows["tiny/shared"]["status"] == "interrupted"
    assert rows["tiny/shared"]["progress"] == pytest.approx(66.7)


def test_a_broken_header_is_listed_and_does_not_break_the_page(store_path, tmp_path):
    import shutil

    copied = tmp_path / "runs"
    shutil.copytree(store_path, copied)
    broken = next(copied.glob("gpt2*")) / "run.json"
    broken.write_text("{")
    rows = {row["run_id"]: row for row in runs_page.listing(runs_page.headers(open_store(copied)))}
    assert rows[broken.parent.name]["status"] == "unreadable"


def test_the_resume_command_is_the_typed_one_or_its_equal():
    typed = {"argv": ["/usr/bin/headatlas", "measure", "gpt2", "--data", "a b"]}
    assert runs_page.resume_command(typed, "runs") == "headatlas measure gpt2 --data 'a b'"
    built = {"model": {"name": "gpt2"}, "data": {"spec": "repeats", "examples": 8}, "probes": {"a": {}, "b": {}}}
    assert runs_page.resume_command(built, "runs") == (
        "headatlas measure gpt2 --probes a,b --data repeats --examples 8 --seed 0 --store runs"
    )


def test_links_leave_out_what_is_empty(inside):
    assert link("/atlas", run="r", probe=None, top=0, flip=False, head="L1H2") == "/atlas?run=r&head=L1H2"


def test_a_taken_default_port_moves_on_and_a_chosen_one_is_refused(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"expected a free port on 127.0.0.1, got {port}"):
            free_port("127.0.0.1", port)
        monkeypatch.setattr("headatlas.dashboards.app.DEFAULT_PORT", port)
        assert port < free_port("127.0.0.1", port) < port + 50


def test_serving_refuses_what_it_cannot_do(store_path, tmp_path):
    with pytest.raises(UserError, match="expected no model"):
        serve(store_path, "gpt2")
    with pytest.raises(UserError, match="there is no store"):
        serve(tmp_path / "nothing")


def test_the_verb_has_the_documented_defaults_and_teaches():
    parser = argparse.ArgumentParser("headatlas serve")
    serve_arguments(parser)
    args = parser.parse_args([])
    assert (args.store, args.model, args.host, args.port, args.open) == ("runs", None, "127.0.0.1", 8050, False)
    assert "headatlas serve --store results --open" in parser.format_help()
