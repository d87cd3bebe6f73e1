"""Every check of the contract over every reading of weights there is."""

import pytest
import torch
from headatlas.data.errors import ProbeError
from headatlas.probes.catalog import all_readings, select
from headatlas.probes.reading import WeightReading, reading
from headatlas.probes.reading_contract import CHECKS, check_reading
from headatlas.probes.worked_weights import random_weights

READINGS = all_readings()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", READINGS)
def test_contract(name, check):
    CHECKS[check](READINGS[name])


def test_the_readings_there_are():
    assert set(READINGS) == {
        "copying_score",
        "matching_score",
        "ov_norm",
        "qk_norm",
        "composition",
        "subspace_affinity",
    }


def _made(**changes):
    facts = {
        "needs": {"w_q"}, "title": "t", "formula": "f", "unit": "u", "bounds": (0, None), "higher": "h", "caveat": "c",
        "source": "s", "scale_free": False,
    }  # fmt: skip
    return reading(**(facts | changes))


def test_the_contract_catches_what_it_should():
    @_made(bounds=(0, 1))
    def out_of_bounds(weights):
        return weights.w_q.norm(dim=(-2, -1))

    @_made()
    def undeclared(weights):
        return weights.w_q.norm(dim=(-2, -1)) + weights.w_o.norm(dim=(-2, -1))

    @_made(needs={"w_q", "w_e"})
    def unread(weights):
        return weights.w_q.norm(dim=(-2, -1))

    @_made()
    def of_the_first_head(weights):
        return weights.w_q.norm(dim=(-2, -1)) * weights.w_q[:, :1, 0, 0].abs()

    @_made()
    def in_one_basis(weights):
        return weights.w_q[:, :, 0].norm(dim=-1)

    @_made(scale_free=True)
    def a_size(weights):
        return weights.w_q.norm(dim=(-2, -1))

    @_made(needs={"w_v"})
    def interleaved(weights):
        return weights.w_v[:, torch.arange(4) % weights.w_v.shape[1]].norm(dim=(-2, -1))

    @_made()
    def drawn(weights):
        return weights.w_q.norm(dim=(-2, -1)) + torch.rand(())

    expected = {
        out_of_bounds: "at 'bounds': .* is above 1",
        undeclared: "at 'needs': reads w_o, which it does not declare",
        unread: "at 'needs': declares w_e and never reads it",
        of_the_first_head: "at 'head_permutation'",
        in_one_basis: "at 'rotation'",
        a_size: "at 'scale'",
        interleaved: "at 'grouped_queries'",
        drawn: "at 'determinism'",
    }
    for one, message in expected.items():
        with pytest.raises(AssertionError, match=message):
            check_reading(one)


def test_a_wrong_shape_is_refused_with_what_was_expected():
    @_made()
    def layers(weights):
        return weights.w_q.square().sum((-3, -2, -1))

    with pytest.raises(ProbeError, match=r"reading 'layers': expected \[layer, head\] of \[3, 4\], got \[3\]"):
        layers.measure(random_weights())


def test_a_reading_says_which_weights_it_takes():
    with pytest.raises(ValueError, match=r"reading 'x' needs w_x; expected some of w_q, w_k, w_v, w_o, w_e, w_u"):

        @_made(needs={"w_x"})
        def x(weights):
            return weights.w_x


def test_a_reading_of_ones_own_is_found_in_its_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from headatlas.probes.reading import reading\n"
        "@reading(needs={'w_q'}, title='Size', formula='|W_Q|', unit='norm', bounds=(0, None), higher='large', "
        "caveat='none', source='here', scale_free=False)\n"
        "def size(weights):\n    '''Frobenius norm.'''\n    return weights.w_q.norm(dim=(-2, -1))\n"
    )
    (one,) = select(f"{file}:size")
    assert isinstance(one, WeightReading)
    assert one.code and one.measure(random_weights()).shape == (3, 4, 1)
    file.write_text(file.read_text().replace("weights.w_q.norm", "weights.nothing.norm"))
    with pytest.raises(ProbeError, match=r"probe 'size': mine.py, line 5, fails: AttributeError"):
        select(f"{file}:size")[0].measure(random_weights())
