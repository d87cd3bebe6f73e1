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
    providers: Mapping[str, Provider],
    repeats: int,
    *,
    device: str = "cpu",
    alone: Callable[[str], tuple[float, float]],
    against: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """A row a provider: milliseconds and the ratio to the first, pair by pair; `alone(name)` gives (peak MB, seconds).

    `alone` runs a provider once, with nothing beside it: where `repeats` is 1 on a CPU its time is taken there too, so
    that long calls run once. What would not fit is a row that says how much it needs, on a GPU also what fails there.
    `against` names further providers to divide by: {column: provider}.
    """
    free = SHARE * free_bytes(device)
    notes = {
        name: f"not run: holds {one.expected_bytes / 1e9:.1f} GB"
        for name, one in providers.items()
        if one.expected_bytes > free
    }
    calls: dict[str, Callable[[], object]] = {}
    timed = repeats > 1 or device == "cuda"
    for name in [name for name in providers if timed and name not in notes]:
        ready = _ready(providers[name], device)
        (notes if isinstance(ready, str) else calls)[name] = ready  # type: ignore[index]
    seconds = side_by_side(calls, repeats, device=device) if timed else {}
    once = {name: alone(name) for name in providers if name not in notes}
    seconds = seconds or {name: [took] for name, (_, took) in once.items()}
    bases = {"ratio": next(iter(seconds)), **(against or {})}
    rows = []
    for name in providers:
        if name in notes:
            rows.append({"provider": name, "note": notes[name]})
            continue
        row: dict[str, Any] = {"provider": name, "ms": round(1e3 * median(seconds[name]), 2)}
        for column in [column for column, base in bases.items() if base in seconds]:
            row |= _spread(column, ratio(seconds[name], seconds[bases[column]]))
        rows.append(row | {"peak_mb": once[name][0]})
    return rows


def _ready(one: Provider, device: str) -> Callable[[], object] | str:
    """The call of a provider, warm; on a GPU, where not every provider takes every call, why it fails."""
    try:
        call = one.make()
        call()
        _wait(device)
    except Exception as error:
        if device == "cpu":
            raise
        return f"not run: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    return call


def _spread(column: str, found: tuple[float, float, float]) -> dict[str, float]:
    """A ratio and its range, as columns."""
    return dict(zip((column, f"{column}_low", f"{column}_high"), (round(value, 2) for value in found), strict=True))


def side_by_side(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each call, warm by now, all of them in turn `repeats` times: A B C A B C ..."""
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
    """(peak MB during `call` above what was held before it, its seconds).

    On a CPU run it in a fresh process; on a GPU the allocator counts this call alone, whatever else is held.
    """
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
    """Seconds of one call: by the wall on a CPU, on a GPU by its own events, from the launch to the last kernel."""
    if device == "cuda":
        return _seconds_on_device(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _seconds_on_device(call: Callable[[], object]) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    call()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1e3


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
