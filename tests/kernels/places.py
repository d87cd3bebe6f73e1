"""Where a test of the kernels runs: on a CUDA device at full length, and at a tiny one in Triton's interpreter."""

import dataclasses

import pytest
import torch
from headatlas.kernels.inputs import AttentionInputs

from .cases import make

TINY = 70
"""Tokens in the interpreter: more than one block of a map."""


def places(*lengths: int, tiny: int = TINY):
    """Parameters (device, length): the interpreter, then the lengths of a GPU."""
    on_gpu = [pytest.param("cuda", length, marks=pytest.mark.gpu, id=f"cuda-{length}") for length in lengths]
    return pytest.mark.parametrize(("device", "length"), [pytest.param("cpu", tiny, id="cpu"), *on_gpu])


def to(device: str, call: AttentionInputs, dtype: torch.dtype | None = None) -> AttentionInputs:
    """The call on a device; queries, keys and values in `dtype`."""

    def move(name, value):
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype if name in ("query", "key", "value") else None)

    fields = {field.name: move(field.name, getattr(call, field.name)) for field in dataclasses.fields(call)}
    fields["targets"] = {name: target.to(device) for name, target in call.targets.items()}
    view = call.visibility
    fields["visibility"] = dataclasses.replace(
        view, key_mask=move("", view.key_mask), query_mask=move("", view.query_mask)
    )
    return AttentionInputs(**fields)


def call_at(device: str, length: int, dtype: torch.dtype = torch.float32, **options) -> AttentionInputs:
    """A call of the size that the device is good for: 4 heads of 128 that share 2, or 2 of 16 that share one."""
    heads, kv_heads, width = (4, 2, 128) if device == "cuda" else (2, 1, 16)
    size = {"batch": 1, "heads": heads, "kv_heads": kv_heads, "width": width, "queries": length}
    return to(device, make(**size | options), dtype)
