"""Timing side by side, peak memory, and what fits: the measuring tools of every bench."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

PROC = Path("/proc")
SHARE = 0.8
"""Share of the free memory that a provider may be expected to take."""
MANY = 1e12
"""Free bytes where the system does not say."""


@dataclass(frozen=True)
class Provider:
    """One way to do the work: `make()` prepares and returns the call that is timed."""

    make: Callable[[], Callable[[], object]]
    expected_bytes: float = 0
    """What it holds at once, by its law of memory; it is not run where that does not fit."""


def compare(
    providers: Mapping[str, Provider], repeats: int, *, device: str = "cpu", alone: Callable[[str], tuple[float, float]]
) -> list[dict[str, Any]]:
    """A row a provider: milliseconds and the ratio to the first, pair by pair; `alone(name)` gives (peak MB, seconds).

    `alone` runs a provider once in a process of its own: where `repeats` is 1 its time is taken there too, so that long
    calls run once. What would not fit is a row that says how much it needs.
    """
    free = SHARE * free_bytes(device)
    fitting = {name: one for name, one in providers.items() if one.expected_bytes <= free}
    several = repeats > 1
    seconds = (
        side_by_side({name: one.make() for name, one in fitting.items()}, repeats, device=device) if several else {}
    )
    once = {name: alone(name) for name in fitting}
    seconds = seconds or {name: [took] for name, (_, took) in once.items()}
    base = next(iter(seconds.values()))
    rows = []
    for name, one in providers.items():
        if name not in seconds:
            rows.append({"provider": name, "note": f"not run: holds {one.expected_bytes / 1e9:.1f} GB"})
            continue
        middle, low, high = ratio(seconds[name], base)
        rows.append(
            {"provider": name, "ms": round(1e3 * median(seconds[name]), 2), "ratio": round(middle, 2),
             "ratio_low": round(low, 2), "ratio_high": round(high, 2), "peak_mb": once[name][0]}
        )  # fmt: skip
    return rows


def side_by_side(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, device: str = "cpu"
) -> dict[str, list[float]]:
    """Wall seconds of each call, one warm-up, then all of them in turn `repeats` times: A B C A B C ..."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call, device))
    return seconds


def ratio(seconds: list[float], base: list[float]) -> tuple[float, float, float]:
    """(median, lowest, highest) of the pairwise ratios."""
    pairs = [a / b for a, b in zip(seconds, base, strict=True)]
    return median(pairs), min(pairs), max(pairs)


def peak_and_seconds(call: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """(peak MB during `call` above what was held before it, its wall seconds); run it in a fresh process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before, took = torch.cuda.memory_allocated(), seconds_of(call, device)
        return (torch.cuda.max_memory_allocated() - before) / 1e6, took
    if not (PROC / "self/status").exists():
        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        before, took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, seconds_of(call)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit, took
    (PROC / "self/clear_refs").write_text("5")
    before, took = _kilobytes("self/status", "VmRSS"), seconds_of(call)
    return (_kilobytes("self/status", "VmHWM") - before) / 1e3, took


def seconds_of(call: Callable[[], object], device: str = "cpu") -> float:
    """Wall seconds of one call, what it left running on the device included."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def free_bytes(device: str = "cpu") -> float:
    """Memory that is free on the device."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    return 1e3 * _kilobytes("meminfo", "MemAvailable") if (PROC / "meminfo").exists() else MANY


def device_name(device: str = "cpu") -> str:
    """What the device calls itself."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    path = PROC / "cpuinfo"
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "cpu")


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _kilobytes(file: str, name: str) -> int:
    lines = (PROC / file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
