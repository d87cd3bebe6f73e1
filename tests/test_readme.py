"""The README says what the code says."""

import re
from pathlib import Path

from headatlas.__main__ import VERBS
from headatlas.probes.catalog import all_probes, all_readings
from headatlas.probes.reproduce import markdown_of_tables
from headatlas.probes.wording import markdown_table

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_table_of_probes_is_the_one_the_code_prints():
    """Regenerate with `headatlas probes --markdown`."""
    table = README.split("<!-- probes -->\n")[1].split("\n<!-- /probes -->")[0]
    assert table == markdown_table(list(all_probes().values()))


def test_the_table_of_readings_is_the_one_the_code_prints():
    table = README.split("<!-- readings -->\n")[1].split("\n<!-- /readings -->")[0]
    assert table == markdown_table(list(all_readings().values()))


def test_the_published_tables_are_those_the_code_prints():
    """Regenerate with `headatlas reproduce --markdown`."""
    table = README.split("<!-- reproductions -->\n")[1].split("\n<!-- /reproductions -->")[0]
    assert table == markdown_of_tables()


def test_every_verb_is_shown_and_every_shown_verb_exists():
    shown = set(re.findall(r"^headatlas (\w+)", README, re.MULTILINE))
    assert set(VERBS) <= shown
    assert shown <= set(VERBS)
