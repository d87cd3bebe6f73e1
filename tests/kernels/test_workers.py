"""Tiles side by side: the same numbers as one after another, and torch's threads left as they were."""

import pytest
import torch
from headatlas.kernels.streaming import streaming_stats
from headatlas.kernels.workers import run_all

from .cases import EVERYTHING, cases


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", ["causal", "everything", "multi-query", "padded encoder", "rule"])
def test_three_threads_give_the_numbers_of_one(case, threads):
    threads(1)
    alone = streaming_stats(cases()[case], EVERYTHING)
    threads(3)
    with torch.inference_mode():
        together = streaming_stats(cases()[case], EVERYTHING)
    assert torch.get_num_threads() == 3
    for name, values in alone.items():
        torch.testing.assert_close(together[name], values, rtol=1e-5, atol=1e-6)


def test_an_error_in_a_thread_is_raised_where_it_was_asked_for(threads):
    threads(2)

    def step(work):
        if work == 3:
            raise ValueError(f"no {work}")

    with pytest.raises(ValueError, match="no 3"):
        run_all(step, range(6), 2)
    assert torch.get_num_threads() == 2


def test_each_thread_tells_torch_to_use_one(threads):
    threads(2)
    seen = []
    run_all(lambda _: seen.append(torch.get_num_threads()), range(8), 2)
    assert seen == [1] * 8
    assert torch.get_num_threads() == 2
