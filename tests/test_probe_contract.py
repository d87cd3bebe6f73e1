"""Every check of the contract over every probe there is: a new probe is tested before its author writes a test."""

import pytest
import torch
from headatlas.probes.catalog import all_probes, select
from headatlas.probes.contract import CHECKS, check_probe
from headatlas.probes.probe import probe

PROBES = all_probes()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", PROBES)
def test_contract(name, check):
    CHECKS[check](PROBES[name])


def _broken(**changes):
    facts = {
        "needs": {"entropy"}, "title": "t", "formula": "f", "unit": "nats", "bounds": (0, None), "higher": "h",
        "caveat": "c", "source": "s",
    }  # fmt: skip

    def decorate(function):
        return probe(**(facts | changes))(function)

    return decorate


def test_the_contract_catches_what_it_should():
    @_broken(bounds=(0, 1))
    def out_of_bounds(stats):
        return stats["entropy"]

    @_broken()
    def undeclared(stats):
        return stats["max_weight"]

    @_broken(needs={"entropy", "max_weight"})
    def unread(stats):
        return stats["entropy"]

    @_broken()
    def across_the_batch(stats):
        return stats["entropy"] - stats["entropy"].mean(0)

    @_broken()
    def wrong_shape(stats):
        return stats["entropy"].mean(-1)

    expected = {
        out_of_bounds: "at 'bounds': .* is above 1",
        unread: "at 'needs': declares max_weight and never reads it",
        across_the_batch: "at 'bounds'|at 'batch_equals_single'",
    }
    for one, message in expected.items():
        with pytest.raises(AssertionError, match=message):
            check_probe(one)
    with pytest.raises(KeyError, match="probe 'undeclared' reads the statistic 'max_weight' but does not declare it"):
        check_probe(undeclared)
    with pytest.raises(ValueError, match=r"expected \[batch, head, query\], got \[3, 4\]"):
        check_probe(wrong_shape)


def test_select_by_name_family_glob_file_and_all(tmp_path):
    assert [one.name for one in select("sink_rate,entropy")] == ["sink_rate", "entropy"]
    assert {one.name for one in select("sinks")} >= {"first_token_mass", "sink_rate", "later_sink"}
    assert {one.name for one in select("*entropy")} == {"entropy", "normalized_entropy"}
    assert len(select("all")) == len(PROBES)
    file = tmp_path / "mine.py"
    file.write_text(
        "from headatlas.probes.probe import probe\n"
        "@probe(needs={'max_weight'}, title='Top', formula='max p', unit='mass', bounds=(0, 1), higher='sharp', "
        "caveat='none', source='here')\n"
        "def top(stats):\n    '''Largest weight.'''\n    return stats['max_weight']\n"
    )
    assert select(f"{file}:top")[0].title == "Top"


@pytest.mark.parametrize(("word", "message"), [
    ("sink_rat", "unknown probe 'sink_rat'. Did you mean 'sink_rate'"),
    ("./nowhere.py:x", "nowhere.py does not exist"),
    ("", "unknown probe ''"),
])  # fmt: skip
def test_select_says_what_is_wrong(word, message):
    from headatlas.data.errors import UserError

    with pytest.raises(UserError, match=message):
        select(word)


def test_nan_where_no_query_has_a_say():
    reading = PROBES["previous_token"].measure(
        __import__("headatlas.probes.worked", fromlist=["stats_of"]).stats_of([[1.0]], {"weight_at:previous"})
    )
    assert torch.isnan(reading.values).all()
    assert reading.n_queries.item() == 0
