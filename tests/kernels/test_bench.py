"""The measuring tools, with clocks and devices that say what the test tells them to."""

import dataclasses

import pytest
import torch
from headatlas.kernels import bench as kernels
from headatlas.kernels import dispatch, timing
from headatlas.kernels.timing import Provider, compare

TINY = kernels.Sizes((64,), 4, 2, 16)


class Device:
    """A CUDA device whose clock moves as calls tell it to, in milliseconds, and whose memory they take."""

    def __init__(self) -> None:
        self.now, self.held, self.peak = 0.0, 100, 100

    def work(self, milliseconds, size=0):
        self.now += milliseconds
        self.peak = max(self.peak, self.held + size)

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)

    def reset(self):
        self.peak = self.held


class Event:
    def __init__(self, device) -> None:
        self.device, self.at = device, None

    def record(self):
        self.at = self.device.now

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.fixture
def device(monkeypatch):
    made = Device()
    for name, value in {
        "Event": made.event, "synchronize": lambda: None, "mem_get_info": lambda: (1e9, 2e9),
        "reset_peak_memory_stats": made.reset, "memory_allocated": lambda: made.held,
        "max_memory_allocated": lambda: made.peak,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def test_a_gpu_is_timed_by_its_own_events_and_what_fails_there_is_a_note(device):
    durations = iter([9.0, 3.0, 4.0, 2.0, 5.0])

    def fails():
        raise RuntimeError("No available kernel.\nAborting execution.")

    providers = {
        "base": Provider(lambda: lambda: device.work(2.0, 5_000_000)),
        "cudnn": Provider(lambda: lambda: device.work(1.0)),
        "ours": Provider(lambda: lambda: device.work(next(durations), 7_000_000)),
        "broken": Provider(lambda: fails),
        "huge": Provider(lambda: fails, expected_bytes=0.9e9),
    }
    alone = lambda name: timing.peak_and_seconds(providers[name].make(), "cuda")  # noqa: E731
    against = {"over_cudnn": "cudnn", "over_broken": "broken"}
    base, cudnn, ours, broken, huge = compare(providers, 3, device="cuda", alone=alone, against=against)
    assert (base["ms"], cudnn["ms"], ours["ms"]) == (2.0, 1.0, 3.0), "the first of ours, 9 ms, is the warm-up"
    assert (ours["ratio"], ours["ratio_low"], ours["ratio_high"]) == (1.5, 1.0, 2.0)
    assert (ours["over_cudnn"], ours["over_cudnn_low"], ours["over_cudnn_high"]) == (3.0, 2.0, 4.0)
    assert "over_broken" not in ours
    assert (base["peak_mb"], ours["peak_mb"]) == (5.0, 7.0)
    assert broken == {"provider": "broken", "note": "not run: RuntimeError: No available kernel."}
    assert huge == {"provider": "huge", "note": "not run: holds 0.9 GB"}


def test_a_failure_on_a_cpu_is_an_error():
    def fails():
        raise RuntimeError("wrong")

    with pytest.raises(RuntimeError, match="wrong"):
        compare({"one": Provider(lambda: fails)}, 2, alone=lambda name: (0.0, 1.0))


def test_long_calls_run_once_alone():
    taken = {"base": (1.0, 2.0), "other": (3.0, 5.0)}
    never = Provider(lambda: pytest.fail("made here"))
    rows = compare(dict.fromkeys(taken, never), 1, alone=taken.__getitem__)
    assert [(row["ms"], row["ratio"], row["peak_mb"]) for row in rows] == [(2000.0, 1.0, 1.0), (5000.0, 2.5, 3.0)]


def test_the_rows_of_a_cpu_are_these():
    names = list(kernels.providers(kernels.SIZES["cpu"], 64))
    names = [name for name in names if "compiled" not in name]
    assert names == [
        "torch SDPA forward", "headatlas streaming, usual", "headatlas streaming, everything",
        "n x n softmax, no statistics", "n x n softmax, usual",
    ]  # fmt: skip
    assert kernels.SIZES["cpu"] == kernels.Sizes((512, 2048, 8192), 8, 8, 64)
    assert kernels.SIZES["cpu"].shape(512) == {"table": "kernels", "length": 512, "heads": 8, "d_head": 64}
    assert TINY.shape(64) == {"table": "kernels", "length": 64, "heads": 4, "kv_heads": 2, "d_head": 16}


def test_the_sets_of_a_gpu_are_those_of_its_target():
    """Twelve statistics of rows and the groups; received attention, future averages and block maps on top."""
    assert len(kernels.ROWS - {"group_mass"}) == 12
    assert kernels.ROWS | {"received"} == kernels.KEYS
    assert kernels.KEYS | {"future_average:10:100", "pooled_mean", "pooled_max"} == kernels.BLOCKS
    assert kernels.BLOCKS <= kernels.EVERYTHING
    assert kernels.SIZES["cuda"] == kernels.Sizes((8192, 32768, 131072), 32, 32, 128)


def test_the_rows_of_a_gpu_run_in_the_interpreter(monkeypatch):
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setenv(dispatch.VARIABLE, "triton")
    monkeypatch.setattr(kernels, "CHECKED", 70)
    kernels.check(TINY, device)
    made = kernels.providers(TINY, 64, device)
    ours = {name: one for name, one in made.items() if name.startswith("headatlas")}
    assert list(ours) == [f"headatlas triton, {what}" for what in kernels.TRITON]
    for what in ("rows", "rows, keys and blocks, logsumexp given"):
        assert ours[f"headatlas triton, {what}"].make()().keys() == kernels.TRITON[what] | {"visible_keys"}


def test_wrong_numbers_are_not_timed(monkeypatch):
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    call = kernels.call_of
    monkeypatch.setattr(kernels, "call_of", lambda *words: dataclasses.replace(call(*words), group_count=16))
    kernels.check(TINY)
    monkeypatch.setattr(kernels, "reference_stats", lambda inputs, needs: dict.fromkeys(needs, torch.tensor(7.0)))
    with pytest.raises(AssertionError, match=r"no table is printed, .* is wrong"):
        kernels.check(TINY)
