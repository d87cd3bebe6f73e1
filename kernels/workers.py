"""Tiles side by side on a CPU: as many Python threads as torch may use, and one torch thread in each.

A tile is a hundred small steps. Splitting each step over threads costs more than it gains; whole tiles side by side do
not wait for each other. Torch lets go of Python's lock inside its operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Work = TypeVar("Work")


def run_all(step: Callable[[Work], object], works: Iterable[Work], threads: int) -> None:
    """step(work) for each work, `threads` at a time; the first error is raised."""
    if threads == 1:
        for work in works:
            step(work)
        return
    inference = torch.is_inference_mode_enabled()

    def guarded(work: Work) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            step(work)

    for _ in _pool(threads).map(guarded, works):
        pass


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that each tell torch to use one thread; the number that holds elsewhere is put back."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="headatlas-tile")
    barrier = Barrier(threads)

    def settle(_: int) -> None:
        torch.get_num_threads()  # a thread that never asked would take the number that is put back below
        torch.set_num_threads(1)
        barrier.wait()

    list(pool.map(settle, range(threads)))
    torch.set_num_threads(before)
    return pool
