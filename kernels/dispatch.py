"""Which implementation computes the statistics of a call: Triton on CUDA, blockwise torch elsewhere.

HEADATLAS_BACKEND names one for every call; `compiled` (blockwise torch, its elementwise part compiled) is had in no
other way. Without it, a call that the Triton kernels can't take (a mask that is a Python rule) is streamed, and so are
calls of a dtype and head size whose kernel does not compile here (one warning).
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
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
Compute = Callable[..., dict[str, Tensor]]
log = logging.getLogger("headatlas")
_broken: set[tuple[torch.dtype, int]] = set()
"""(dtype, head size) of the calls whose Triton kernels failed on this machine."""


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


def choose(device: torch.device | str) -> tuple[str, str]:
    """(backend, why) for tensors on `device`."""
    device = torch.device(device)
    named = forced()
    if named is not None:
        reason = OBSTACLES[named](device) if named in OBSTACLES else None
        if reason is not None:
            raise BackendError(f"{VARIABLE}={named}: {reason}; unset it, or use one of streaming, reference")
        return named, f"{VARIABLE} says so"
    reason = _no_triton(device)
    return ("triton", f"the tensors are on {device.type}") if reason is None else ("streaming", reason)


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


def backend(device: torch.device | str = "cpu") -> str:
    """The backend in force for tensors on `device`; said once, with the reason."""
    name, reason = choose(device)
    _say(name, reason)
    return name


@cache
def _say(name: str, reason: str) -> None:
    log.info("attention statistics by %s: %s", name, reason)


def attention_stats(
    inputs: AttentionInputs, needs: frozenset[str], *, logsumexp: Tensor | None = None
) -> dict[str, Tensor]:
    """Every field of `needs` for one attention call, by the backend in force.

    `logsumexp` [batch, head, query] in nats, where the model's own attention has found it, saves Triton a sweep.
    """
    name = backend(inputs.query.device)
    if name != "triton":
        return BACKENDS[name](inputs, needs)
    if VARIABLE in os.environ:
        return _triton_stats(inputs, needs, logsumexp=logsumexp)
    return _triton_or_streaming(inputs, needs, logsumexp)


def _triton_or_streaming(inputs: AttentionInputs, needs: frozenset[str], logsumexp: Tensor | None) -> dict[str, Tensor]:
    from triton.errors import TritonError

    from .triton_stats import obstacle

    kind = (inputs.query.dtype, inputs.query.shape[-1])
    reason = obstacle(inputs)
    if reason is not None:
        _say("streaming", f"for a call that Triton can't take: {reason}")
    elif kind not in _broken:
        try:
            return _triton_stats(inputs, needs, logsumexp=logsumexp)
        except torch.OutOfMemoryError:
            raise
        except (TritonError, RuntimeError, CalledProcessError) as error:  # no compiler, no headers, too few registers
            _broken.add(kind)
            said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            warnings.warn(
                f"headatlas streams calls of {kind[0]} and head size {kind[1]}: a Triton kernel failed here ({said})",
                RuntimeWarning,
                stacklevel=3,
            )
    return streaming_stats(inputs, needs)
