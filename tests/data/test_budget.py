"""Areas and curves of head budgets against numbers by hand."""

import numpy as np
import pytest
from headatlas.data.budget import _added, _curves, _scores

HEADER = {
    "probes": {"exact_match": {"binary": True}},
    "edits": [[], [{"kind": "zero", "heads": ["L0H0"]}]],
    "budget": {
        "sizes": [0, 1, 2, 4],
        "orders": {"good": [0, 1, 1, 1], "random 0": [0, 1, 1, 1], "random 1": [0, 0, 0, 1]},
        "named": {"good": 1},
    },
}


def test_the_area_between_curves_by_hand():
    """Of 4 heads, score 1 until the one that matters is edited: the reading edits it first, random orders anywhere."""
    values = np.tile([1.0, 0.0], (6, 1))  # variant 0: it still works; variant 1: it does not
    clusters = np.array(list("abcdef"))
    scores = _scores(HEADER["budget"], values, clusters)
    # mean random curve 1, .5, .5, 0; the reading's 1, 0, 0, 0; trapezoids over 0, .25, .5, 1
    assert scores["area"].tolist() == pytest.approx([0.25 * 0.25 + 0.5 * 0.25 + 0.25 * 0.5])
    assert scores["to_half"].tolist() == [1.0] and scores["n"].tolist() == [6] and scores["named"].tolist() == [1]
    curves = _curves(HEADER, values, clusters, "exact_match")
    assert curves[curves["reading"] == "random"]["mean"].tolist() == [1.0, 0.5, 0.5, 0.0]
    good = curves[curves["reading"] == "good"]
    assert good["added"].tolist() == ["", "L0H0", "", ""] and good["named"].tolist() == [0, 1, 1, 1]
    all_right = good.iloc[0]
    assert (all_right["ci_low"], all_right["ci_high"]) == (pytest.approx(0.6097, abs=1e-4), 1.0)  # Wilson, 6 of 6


def test_a_step_names_the_heads_it_adds_in_the_order_of_layers():
    assert _added([set(), {"L10H0"}, {"L10H0", "L2H1", "L2H0"}]) == ["", "L10H0", "L2H0 L2H1"]
