"""What the compiler makes of the statistics kernels for compute capability 9.0, with no GPU at hand.

    python benchmarks/instructions.py [KERNEL ...] [--compile-only] [--opcodes]

For each kernel: registers, bytes of spilled registers, shared memory, and what 128 x 64 pairs of a whole block of keys
take, in cycles of a multiprocessor, were nothing ever waited for:

    issue    instructions over the four schedulers, one each a cycle
    tensor   products, 2,048 multiply-adds a cycle in half precision, half of that in tf32
    special  exp2 and the like, 16 a cycle
    memory   shared memory, 128 bytes a cycle, bank conflicts not seen

A tile can't take less than the largest of the four; what it takes beyond is waiting. The last column is that over what
flash attention takes for its own tile of d_head 128 at 335 TFLOP/s (flash-2): 2,900 cycles. At 600 (cuDNN, flash-3) it
would be 1,620.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
import triton
from headatlas.kernels.triton_bands import key_bands, row_bands
from headatlas.kernels.triton_scores import Call
from headatlas.kernels.triton_shapes import block_sizes
from headatlas.kernels.triton_stats import FINAL, TOKEN_FIELDS, UNBOUNDED
from headatlas.kernels.triton_sweep import Marks, Out, sweep
from headatlas.kernels.triton_tokens import equal_keys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "i8", torch.int32: "i32"}
LOGSUMEXP = ("logsumexp",)
EVERY_ROW = tuple(name for name in Out._fields if name not in FINAL and name != "output")
ROWS = (
    "logsumexp", "max_logit", "argmax_key", "row_mass", "entropy", "sum_squares", "mean_distance",
    "mean_square_distance", "clipped_distance", "group_mass",
)  # fmt: skip
USUAL = ("max_logit", "entropy", "sum_squares", "group_mass", "received")
PAIRS = 128 * 64
"""What cycles are given for."""
SCHEDULERS, LANES, SPECIAL, MULTIPLY_ADDS, BYTES = 4, 32, 16, 2048, 128
"""Of a multiprocessor; the last three a cycle."""
MOST_SHARED = 232_448
"""Bytes of shared memory that one program may take."""
FLASH_2 = 2900
"""Cycles of PAIRS pairs of flash attention at 335 TFLOP/s on 132 multiprocessors of 1.755 GHz, d_head 128."""
LONG = 40
"""Instructions of the shortest loop, or skipped part of one, that is looked at."""


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
        "query": pointer(dtype), "key": pointer(dtype), "query_strides": (4096, 128, 128),
        "key_strides": (1024, 128, 128),
        "heads": 32, "repeats": 4, "queries": 8192, "keys": 8192, "before": UNBOUNDED, "after": 0, "offset": 0,
        "scale": 0.1, "softcap": None, "bias": None, "bias_strides": (0, 0, 0, 0), "key_mask": None,
    }  # fmt: skip
    return Call(**plain | rules)


def marks_of(fields, dtype: torch.dtype, padded: bool) -> Marks:
    asked = set(fields)
    tokens = pointer(torch.int32) if asked & set(TOKEN_FIELDS) else None
    return Marks(
        key_group=pointer(torch.int8) if asked & {"group_mass", "value_weighted_mass"} else None,
        query_group=pointer(torch.int8) if "received_by_group" in asked else None,
        real=pointer(torch.int8) if asked & FINAL and padded else None,
        query_token=tokens, key_token=tokens, token_before=tokens,
        value=pointer(dtype) if "output" in asked else None,
        value_norm=pointer(torch.float32) if "value_weighted_mass" in asked else None,
        sink=None, groups=6, limit=10.0 if "clipped_distance" in asked else None,
    )  # fmt: skip


def swept(fields, *, given: bool, dtype=torch.bfloat16, width=128, pack=1, padded=False, **rules) -> tuple:
    out = {name: pointer(torch.int32 if name.endswith("_key") else torch.float32) for name in fields}
    sizes = block_sizes(width, dtype, fields)
    arguments = {
        "call": call_of(dtype, **rules), "marks": marks_of(fields, dtype, padded),
        "given": pointer(torch.float32) if given else None,
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


def counted() -> tuple:
    outputs = {"duplicates": pointer(torch.int32), "inductions": pointer(torch.int32)}
    arguments = {"call": call_of(torch.bfloat16), "marks": marks_of(TOKEN_FIELDS, torch.bfloat16, False), **outputs}
    return equal_keys, arguments, {"BLOCK_Q": 64, "BLOCK_K": 64}, {"num_warps": 4}


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
    "logsumexp alone": swept(LOGSUMEXP, given=False, pack=4),
    "rows": swept(ROWS, given=False),
    "rows, grouped": swept(ROWS, given=False, pack=4),
    "rows, float32": swept(ROWS, given=False, dtype=torch.float32),
    "rows, logsumexp given": swept(ROWS[1:], given=True),
    "usual, logsumexp given": swept(USUAL, given=True),
    "rows, d_head 256": swept(ROWS, given=False, width=256),
    "every field, float32, logsumexp given": swept(Out._fields, given=True, dtype=torch.float32),
    "usual, logsumexp given, d_head 64": swept(USUAL, given=True, width=64),
    "rows, keys and blocks, logsumexp given": swept((*ROWS[1:], "received", "pooled_mean", "pooled_max"), given=True),
    "every row": swept(EVERY_ROW, given=False),
    "every row, every rule": swept(EVERY_ROW, given=False, **RULES),
    "every field but output, logsumexp given": swept(
        tuple(name for name in Out._fields if name not in ("output", "logsumexp")), given=True
    ),
    "every field, logsumexp given, padded": swept(Out._fields, given=True, padded=True),
    "equal keys": counted(),
    "row bands": banded(row_bands, ("given", "widths", "mass")),
    "key bands": banded(key_bands, ("given", "bounds", "real", "mass")),
}


def read(cubin: bytes, *words: str) -> str:
    """What cuobjdump says of a kernel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, *words, file.name], capture_output=True, text=True, check=True)
    return said.stdout + said.stderr


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers of a thread, bytes of its stack: what was spilled)."""
    found = dict(re.findall(r"(REG|STACK):(\d+)", read(cubin, "-res-usage")))
    return int(found["REG"]), int(found["STACK"])


def open_loop(cubin: bytes) -> list[str]:
    """The instructions of the last innermost loop, over whole blocks, less the longer side of each if and else.

    That side is for the keys near a row, which few blocks hold; so is what an if without else guards.
    """
    lines = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;", read(cubin, "-sass"))
    place = {int(address, 16): index for index, (address, _) in enumerate(lines)}
    goal = {
        index: place.get(int(found[1], 16), index)
        for index, (_, text) in enumerate(lines)
        if (found := re.search(r"BRA.*?(0x[0-9a-f]+)", text))
    }
    loops = [(first, last) for last, first in goal.items() if last - first >= LONG]
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    first, last = inner[-1]
    kept = set(range(first, last + 1))
    for branch, other in goal.items():  # branch [one side] jump [other side] end, or branch [one side] other
        always = lines[branch][1].startswith("BRA 0x")
        if always or not (first <= branch and branch + LONG < other <= last):
            continue
        end = goal.get(other - 1, 0)
        sides = (range(branch + 1, other), range(other, end if other < end <= last else other))
        kept -= set(max(sides, key=len))
    return [lines[index][1] for index in sorted(kept)]


def cycles(instructions: list[str], threads: int, pairs: int) -> dict[str, float]:
    """Cycles of a multiprocessor for PAIRS pairs by issue, tensor cores, special functions and shared memory."""
    warps = threads // LANES
    special = products = moved = 0.0
    for text in instructions:
        special += ("MUFU" in text) * threads
        if found := re.search(r"HGMMA\.(\d+)x(\d+)x(\d+)\.F32(\.TF32)?", text):  # of four warps
            rows, columns, depth = map(int, found.groups()[:3])
            products += rows * columns * depth * (2 if found[4] else 1) * warps / SCHEDULERS
            from_shared = columns + (rows if re.search(r"F32\S* R\d+, gdesc", text) else 0)
            moved += from_shared * depth * (4 if found[4] else 2) * warps / SCHEDULERS
        elif found := re.search(r"HMMA\.16(8)(16|8)\.F32(\.TF32)?", text):
            products += 16 * 8 * int(found[2]) * (2 if found[3] else 1) * warps
        elif found := re.match(r"(?:@\S+ )?(LDSM|STSM|LDS|STS)(\S*)", text):
            wide = re.search(r"\.(128|64|U16|U8|16)\b", found[2])
            tiles = re.search(r"\.M88\.(\d)", found[2])
            size = (
                int(tiles[1]) * 4 if tiles else {"128": 16, "64": 8, "U16": 2, "U8": 1}.get(wide[1] if wide else "", 4)
            )
            moved += size * threads
    of_tile = {
        "issue": len(instructions) * warps / SCHEDULERS, "tensor": products / MULTIPLY_ADDS,
        "special": special / SPECIAL, "memory": moved / BYTES,
    }  # fmt: skip
    return {name: value * PAIRS / pairs for name, value in of_tile.items()}


def compiled(name: str) -> tuple[bytes, int, dict]:
    """(machine code, bytes of shared memory, constants and options) of a kernel."""
    kernel, arguments, constants, chosen = KERNELS[name]
    source = Signature(kernel, arguments, constants).source
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=chosen)
    return made.asm["cubin"], made.metadata.shared, constants | chosen


def main(words: list[str] | None = None) -> int:
    """Compile, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument("--compile-only", action="store_true", help="whether they compile, and no more")
    parser.add_argument("--opcodes", action="store_true", help="the instructions of a tile, by name")
    args = parser.parse_args(words)
    head = ("registers", "spilled", "shared", "issue", "tensor", "special", "memory", "of flash-2")
    print(f"{'triton ' + triton.__version__:<44}" + "".join(f"{word:>11}" for word in head))
    unfit = 0
    for name in args.kernels or KERNELS:
        cubin, shared, sizes = compiled(name)
        row = [*resources(cubin), shared]
        if not args.compile_only:
            tile = open_loop(cubin)
            found = cycles(tile, LANES * sizes["num_warps"], sizes["BLOCK_Q"] * sizes["BLOCK_K"])
            share = round(max(found.values()) / FLASH_2, 2) if sizes.get("D") == 128 else ""
            row += [*(round(value) for value in found.values()), share]
        print(
            f"{name:<44}" + "".join(f"{value if value == '' else format(value, ','):>11}" for value in row), flush=True
        )
        if shared > MOST_SHARED:
            print(f"    can't be launched: a program may have {MOST_SHARED:,} bytes of shared memory")
            unfit = 1
        if args.opcodes:
            names = Counter(re.sub(r"^@\S+\s+", "", text).split()[0].split(".")[0] for text in tile)
            print("    " + ", ".join(f"{count} {opcode}" for opcode, count in names.most_common(20)))
    return unfit


if __name__ == "__main__":
    sys.exit(main())
