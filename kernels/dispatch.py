"""Which implementation computes the statistics of a call: Triton on CUDA, blockwise torch elsewhere.

Blockwise torch compiles its elementwise part where a run on a CPU is long enough to pay for it. HEADATLAS_BACKEND names
one implementation for every call. Without it, a call that the Triton kernels can't take (a mask that is a Python rule)
is streamed, and so is every call of a kind whose code did not compile here (one warning).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from importlib.util import find_spec
from subprocess import CalledProcessError

import torch
from torch import Tensor

from . import compiled
from .inputs import AttentionInputs
from .reference import reference_stats
from .streaming import streaming_stats

VARIABLE = "HEADATLAS_BACKEND"
LONG = 2e10
"""Visible (head, query, key) cells of a run on a CPU from which on compiling pays: some three minutes of statistics."""
Compute = Callable[..., dict[str, Tensor]]
log = logging.getLogger("headatlas")
_broken: set[str] = set()
"""Calls, in words, whose code failed on this machine."""

_chosen: ContextVar[str | None] = ContextVar("backend", default=None)
"""The backend of the run that is being measured."""


class BackendError(ValueError):
    """HEADATLAS_BACKEND names what is not there."""


def _triton_stats(inputs: AttentionInputs, needs: frozenset[str], *, logsumexp: Tensor | None = None) -> dict:
    from .triton_stats import triton_stats

    return triton_stats(inputs, needs, logsumexp=logsumexp)


BACKENDS: dict[str, Compute] = {
    "streaming": streaming_stats,
    "compiled": partial(streaming_stats, compiled=True),
    "reference": reference_stats,
    "triton": _triton_stats,
}


def forced() -> str | None:
    """The backend that HEADATLAS_BACKEND names, or None."""
    name = os.environ.get(VARIABLE)
    if name is not None and name not in BACKENDS:
        raise BackendError(f"{VARIABLE}: expected one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def choose(device: torch.device | str, cells: float = 0.0) -> tuple[str, str]:
    """(backend, why) for tensors on `device`, in a run over so many visible (head, query, key) cells."""
    device = torch.device(device)
    named = forced()
    if named is not None:
        reason = OBSTACLES[named](device) if named in OBSTACLES else None
        if reason is not None:
            raise BackendError(f"{VARIABLE}={named}: {reason}; unset it, or use one of streaming, reference")
        return named, f"{VARIABLE} says so"
    reason = _no_triton(device)
    if reason is None:
        return "triton", f"the tensors are on {device.type}"
    if cells >= LONG and compiled.obstacle(device) is None:
        return "compiled", f"{reason}, and the run is long"
    return "streaming", reason


def _no_triton(device: torch.device) -> str | None:
    """Why Triton can't run on `device`, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {device.type}, not cuda"
    if device.type != "cuda" and VARIABLE not in os.environ:
        return "Triton's interpreter is used only where it is asked for"
    return None


OBSTACLES = {"triton": _no_triton, "compiled": compiled.obstacle}
"""Why a backend can't be had on a device, or None."""


def backend(device: torch.device | str = "cpu", cells: float = 0.0) -> str:
    """The backend in force for tensors on `device`, in a run over so many cells; said once, with the reason."""
    name, reason = choose(device, cells)
    _say(name, reason)
    return name


@contextmanager
def using(name: str) -> Iterator[None]:
    """Every call inside by this backend, streamed where it fails."""
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


@cache
def _say(name: str, reason: str) -> None:
    log.info("attention statistics by %s: %s", name, reason)


def attention_stats(
    inputs: AttentionInputs, needs: frozenset[str], *, logsumexp: Tensor | None = None
) -> dict[str, Tensor]:
    """Every field of `needs` for one attention call, by the backend in force.

    `logsumexp` [batch, head, query] in nats, where the model's own attention has found it, saves Triton a sweep.
    """
    name = _chosen.get() or backend(inputs.query.device)
    options = {"logsumexp": logsumexp} if name == "triton" else {}
    if VARIABLE in os.environ or name == "streaming":
        return BACKENDS[name](inputs, needs, **options)
    if not _given_up(name, inputs):
        try:
            return BACKENDS[name](inputs, needs, **options)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, CalledProcessError, _triton_error()) as error:
            _give_up(name, inputs, error)
    return streaming_stats(inputs, needs)


def _given_up(name: str, inputs: AttentionInputs) -> bool:
    """Whether this backend does not take the call, or has failed on one like it."""
    if name == "triton":
        from .triton_stats import obstacle

        reason = obstacle(inputs)
        if reason is not None:
            _say("streaming", f"for a call that Triton can't take: {reason}")
            return True
    return _kind(name, inputs) in _broken


def _kind(name: str, inputs: AttentionInputs) -> str:
    """The calls that fail together when this backend does not compile."""
    dtype, width = inputs.query.dtype, inputs.query.shape[-1]
    return f"calls of {dtype} and head size {width}" if name == "triton" else "every call"


def _give_up(name: str, inputs: AttentionInputs, error: Exception) -> None:
    """Never try the like again (no compiler, no headers, too few registers), and say so once."""
    kind = _kind(name, inputs)
    _broken.add(kind)
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    warnings.warn(f"headatlas streams {kind}: {name} failed here ({said})", RuntimeWarning, stacklevel=3)


def _triton_error() -> type[Exception]:
    """What Triton raises; nothing new where it is not installed."""
    if find_spec("triton") is None:
        return RuntimeError
    from triton.errors import TritonError

    return TritonError
