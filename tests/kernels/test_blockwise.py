"""The blockwise oracle is the materialised one, on every call small enough for both."""

import pytest
import torch
from headatlas.kernels.reference import reference_stats

from .blockwise import blockwise_stats
from .cases import EVERYTHING, FINITE, cases, infinite_bias

CASES = cases() | {"infinite bias": infinite_bias()}


@pytest.mark.parametrize("case", CASES)
def test_blocks_of_queries_make_the_whole(case):
    call, needs = CASES[case], (FINITE if case == "infinite bias" else EVERYTHING) | {"argmax_key"}
    got, expected = blockwise_stats(call, needs, cells=1), reference_stats(call, needs)
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        torch.testing.assert_close(
            got[name], want, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )
