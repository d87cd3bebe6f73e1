"""Ranks, percentiles, strata and the checks on names."""

import numpy as np
import pandas as pd
import pytest
from headatlas.dashboards.reading import add_ranks, by_standing, row_in
from headatlas.dashboards.readings import every_reading, per_head, read, strata_of
from headatlas.data.errors import UserError
from headatlas.data.heads import parse_head

from .invented import EVERY, ROLES


def test_rank_one_is_the_highest_and_undefined_heads_have_none():
    table = add_ranks(pd.DataFrame({"value": [0.1, 0.9, np.nan, 0.5, 0.5]}))
    assert table["rank"].tolist()[:2] == [4, 1]
    assert table["rank"].tolist()[3:] == [2, 2]
    assert np.isnan(table["rank"][2])
    assert np.isnan(table["percentile"][2])
    assert table["percentile"].tolist()[:2] == [12.5, 87.5]


def test_the_middle_head_stands_at_fifty():
    table = add_ranks(pd.DataFrame({"value": [1.0, 2.0, 3.0]}))
    assert table["percentile"][1] == 50


def test_strata_come_coarse_first_and_in_numeric_order():
    names = ["length=512;depth=0.5", "length=1024", "length=64", "length=512"]
    table = pd.DataFrame({"stratum": names})
    assert strata_of(table) == ["length=64", "length=512", "length=1024", "length=512;depth=0.5"]


def test_a_reading_equals_the_heads_table(run):
    reading = read(run, "induction", stratum="length=128")
    heads = run.heads("induction", stratum="length=128").sort_values(["layer", "head"])
    assert reading.table["value"].tolist() == heads["mean"].tolist()
    assert reading.table["low"].tolist() == heads["ci_low"].tolist()
    assert reading.table["name"][13] == "L1H1"
    assert reading.ranked == 144


def test_the_heads_with_a_role_are_the_top_heads(run):
    for role, probe in {"induction": "induction", "previous": "previous_token", "duplicate": "duplicate_token"}.items():
        best = read(run, probe).top(len(ROLES[role]))
        assert {(row.layer, row.head) for row in best.itertuples()} == ROLES[role]


def test_what_a_head_does_comes_first_on_its_card(run):
    readings = every_reading(run, per_head(run.heads()), stratum="length=64")
    assert {reading.probe for reading in readings} == set(EVERY)
    assert by_standing(readings, "L5H1")[0].probe == "induction"
    assert by_standing(readings, "L2H7")[0].probe == "previous_token"


def test_parts_are_readings_of_their_own(shared):
    rest = read(shared, "group_mass", part="rest")
    bos = read(shared, "group_mass", part="bos")
    assert rest.title == "Group mass · rest"
    assert row_in(rest, "L0H0")["value"] == pytest.approx(1 - row_in(bos, "L0H0")["value"], abs=1e-6)
    assert (bos.heads, bos.kv_heads) == (8, 2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"probe": "inductoin"}, "Did you mean 'induction'"),
        ({"probe": "induction", "stratum": "length=9"}, "expected a stratum among 'length=64', 'length=128'"),
        ({"probe": "induction", "part": "bos"}, "expected a part among ''"),
        ({"probe": "induction", "tower": "vision"}, "expected a tower among 'text'"),
    ],
)
def test_unknown_names_are_refused_with_what_exists(run, asked, message):
    with pytest.raises(UserError, match=message):
        read(run, **asked)


@pytest.mark.parametrize("name", ["L5", "5.1", "H1L5", "L-1H0", "L5H1x", ""])
def test_head_names_have_one_spelling(name):
    with pytest.raises(UserError, match="expected a head like L5H1"):
        parse_head(name)


def test_head_names_are_read_in_either_case():
    assert parse_head("l12h3") == (12, 3)
