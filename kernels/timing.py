"""Timing side by side and peak memory: the two measuring tools of every bench."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

STATUS = Path("/proc/self/status")


def side_by_side(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each call, one warm-up, then all of them in turn `repeats` times: A B C A B C ..."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: list[float], base: list[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the pairwise ratios."""
    pairs = [a / b for a, b in zip(seconds, base, strict=True)]
    return median(pairs), min(pairs), max(pairs)


def peak_megabytes(call: Callable[[], object]) -> float:
    """Peak resident memory during `call` above what was resident before it, in MB; run it in a fresh process."""
    if not STATUS.exists():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes("VmRSS")
    call()
    return (_kilobytes("VmHWM") - before) / 1e3


def _kilobytes(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
