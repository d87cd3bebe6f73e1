"""How the Triton kernels are cut: block shapes, compiler's options, and how many programs share a head."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import triton

from .stats import BLOCK_SIZE

WIDE = frozenset(
    {"duplicate_mass", "induction_mass", "value_weighted_mass", "logit_sum", "logit_sum_squares", "output"}
)
"""Fields that take many registers: without them two programs of 8 warps fit a multiprocessor."""
PROGRAMS = 264
"""Programs that run at once where the device does not say: two on each multiprocessor of an H100."""
BUSY = 0.9
"""Share of them that should have work."""


def block_sizes(width: int, dtype: torch.dtype, fields: Collection[str] = ()) -> dict[str, Any]:
    """Head size, block shapes, precision of dot products, and the compiler's options, for a kernel of these fields.

    Registers are capped where two programs of a multiprocessor are worth more than a few that spill.
    """
    padded = max(16, triton.next_power_of_2(width))
    large = padded * dtype.itemsize > 256
    sizes = {
        "D": width, "BLOCK_D": padded, "BLOCK_Q": BLOCK_SIZE if large else 2 * BLOCK_SIZE, "BLOCK_K": BLOCK_SIZE,
        "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32", "num_warps": 4 if large else 8, "num_stages": 2,
        "enable_fp_fusion": True,
    }  # fmt: skip
    return sizes if large or WIDE & set(fields) else sizes | {"maxnreg": 128}


def walkers(blocks: int, lanes: int, at_once: int) -> int:
    """Programs that share the row blocks of a head, each with a slice of its own for what is summed over queries.

    The fewest that keep the device busy, so that slices, 4 n bytes a program and sum, stay few and in the L2 cache.
    """
    most = 8 * at_once
    fits = (
        waves * at_once // lanes for waves in range(1, 9) if waves * at_once // lanes * lanes >= BUSY * waves * at_once
    )
    return min(blocks, next(fits, max(1, most // lanes)))


def at_once(device: torch.device) -> int:
    """Programs that a device runs at the same time, two on a multiprocessor."""
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else PROGRAMS
