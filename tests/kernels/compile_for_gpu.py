"""Compile the Triton kernels for compute capability 9.0, with no GPU at hand.

    python tests/kernels/compile_for_gpu.py [NAME ...]

Prints registers, bytes of spilled registers and shared memory of each, as the assembler found them.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import triton
from headatlas.kernels.triton_bands import key_bands, row_bands
from headatlas.kernels.triton_scores import Call
from headatlas.kernels.triton_stats import FINAL, TOKEN_FIELDS, UNBOUNDED, block_sizes
from headatlas.kernels.triton_sweep import Marks, Out, sweep
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "i8", torch.int32: "i32"}
LOGSUMEXP = ("logsumexp",)
ROWS = tuple(name for name in Out._fields if name not in FINAL and name != "output")
USUAL = ("logsumexp", "max_logit", "entropy", "sum_squares", "mean_distance", "group_mass")


def pointer(dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(0, dtype=dtype)


class Signature:
    """Types, constants and alignments of a kernel's arguments, as a launch on 16-byte aligned tensors has them."""

    def __init__(self, kernel, arguments: dict, constants: dict) -> None:
        self.constants, self.aligned = {}, {}
        names = kernel.arg_names
        assert list(arguments) + list(constants) == names, names
        types = {name: self.describe(value, (index,)) for index, (name, value) in enumerate(arguments.items())}
        for name, value in constants.items():
            types[name] = "constexpr"
            self.constants[(names.index(name),)] = value
        self.source = ASTSource(kernel, types, self.constants, self.aligned)

    def describe(self, value, path: tuple[int, ...]):
        if isinstance(value, tuple):
            inner = [self.describe(item, (*path, index)) for index, item in enumerate(value)]
            return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
        if value is None:
            self.constants[path] = None
            return "constexpr"
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            self.aligned[path] = [["tt.divisibility", 16]]
        return f"*{NAMES[value.dtype]}" if isinstance(value, torch.Tensor) else "i32"


def call_of(dtype: torch.dtype, **rules) -> Call:
    plain = {
        "query": pointer(dtype), "key": pointer(dtype), "query_strides": (4096, 128, 128), "key_strides": (1024, 128, 128),
        "heads": 32, "repeats": 4, "queries": 8192, "keys": 8192, "before": UNBOUNDED, "after": 0, "offset": 0,
        "scale": 0.1, "softcap": None, "bias": None, "bias_strides": (0, 0, 0, 0), "key_mask": None,
    }  # fmt: skip
    return Call(**plain | rules)


def marks_of(fields, dtype: torch.dtype, padded: bool) -> Marks:
    tokens = [pointer(torch.int32) if set(fields) & set(TOKEN_FIELDS) else None] * 3
    groups = {"group_mass", "value_weighted_mass"} & set(fields)
    return Marks(
        pointer(torch.int8) if groups else None,
        pointer(torch.int8) if "received_by_group" in fields else None,
        pointer(torch.int8) if FINAL & set(fields) and padded else None,
        *tokens,
        pointer(dtype) if "output" in fields else None,
        pointer(torch.float32) if "value_weighted_mass" in fields else None,
        None,
        10.0 if "clipped_distance" in fields else None,
    )


def swept(fields, *, given: bool, dtype=torch.bfloat16, width=128, pack=1, padded=False, **rules) -> tuple:
    out = {name: pointer(torch.int32 if name.endswith(("_key", "_keys")) else torch.float32) for name in fields}
    sizes = block_sizes(width, dtype, fields)
    arguments = {
        "call": call_of(dtype, **rules), "marks": marks_of(fields, dtype, padded), "given": pointer(torch.float32) if given else None,
        "out": Out(*(out.get(name) for name in Out._fields)), "blocks": 64,
    }  # fmt: skip
    constants = {
        "D": width, "D_VALUE": width if "output" in fields else 1, "BLOCK_D": sizes["BLOCK_D"],
        "BLOCK_V": width if "output" in fields else 16, "BLOCK_Q": sizes["BLOCK_Q"], "BLOCK_K": sizes["BLOCK_K"],
        "PACK": pack, "PRECISION": sizes["PRECISION"],
    }  # fmt: skip
    return sweep, arguments, constants, options(sizes)


def options(sizes: dict) -> dict:
    """What of the sizes is for the compiler."""
    return {name: value for name, value in sizes.items() if name.islower()}


def banded(kernel, names) -> tuple:
    sizes = block_sizes(128, torch.bfloat16)
    pointers = {name: pointer(NAMED.get(name, torch.float32)) for name in names}
    constants = {name: sizes[name] for name in ("D", "BLOCK_D", "BLOCK_Q", "BLOCK_K", "PRECISION")}
    return kernel, {"call": call_of(torch.bfloat16), **pointers}, constants, options(sizes)


NAMED = {"widths": torch.int32, "bounds": torch.int32, "real": torch.int8}
RULES = {
    "softcap": 30.0, "key_mask": pointer(torch.int8), "bias": pointer(torch.float32), "bias_strides": (0, 64, 8192, 1),
    "before": 4096,
}  # fmt: skip
KERNELS = {
    "online, logsumexp alone": swept(LOGSUMEXP, given=False, pack=4),
    "online, usual rows": swept(USUAL, given=False, pack=4),
    "online, usual rows, float32": swept(USUAL, given=False, dtype=torch.float32),
    "online, every row": swept(ROWS, given=False, **RULES),
    "given, rows and received": swept((*USUAL[2:], "received"), given=True),
    "given, every field": swept(Out._fields, given=True, padded=True),
    "row bands": banded(row_bands, ("given", "widths", "mass")),
    "key bands": banded(key_bands, ("given", "bounds", "real", "mass")),
}


def resources(cubin: bytes) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"(REG|STACK):(\d+)", said.stdout + said.stderr))
    return f"{found.get('REG')} registers, {found.get('STACK')} bytes spilled"


if __name__ == "__main__":
    for name in sys.argv[1:] or KERNELS:
        kernel, arguments, constants, chosen = KERNELS[name]
        start = time.perf_counter()
        source = Signature(kernel, arguments, constants).source
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=chosen)
        seconds = time.perf_counter() - start
        print(
            f"compiled {name}: {resources(made.asm['cubin'])}, {made.metadata.shared:,} bytes shared, {seconds:.0f} s"
        )
