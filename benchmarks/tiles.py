"""Times of the statistics kernels over block shapes, warps and stages: which are best on this device.

    python benchmarks/tiles.py [--length 8192] [--heads 32] [--kv-heads 32] [--width 128] [--sets rows ...]
                               [--seconds 400] [--out tiles.csv]

For each set of statistics: the shape in use first, then every candidate, as milliseconds and as a ratio to the shape in
use and to torch's flash attention on the same tensors. A candidate that does not compile, or gives other numbers than
the shape in use, is named with the reason. They are compiled by several processes first, on short calls. Stops when the
seconds are spent; what is measured is printed and written.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from headatlas.kernels import bench
from headatlas.kernels.sdpa import with_logsumexp
from headatlas.kernels.timing import seconds_of, side_by_side
from headatlas.kernels.triton_stats import Launch, triton_stats
from torch import Tensor

SETS = {
    "rows": (bench.ROWS, False),
    "rows, logsumexp given": (bench.ROWS, True),
    "rows and keys": (bench.KEYS, False),
    "rows, keys and blocks, logsumexp given": (bench.BLOCKS, True),
    "rows and keys, logsumexp given": (bench.KEYS, True),
    "logsumexp": (frozenset({"logsumexp"}), False),
}
"""(statistics, whether logsumexp is given)."""
MAIN = ("rows", "rows, keys and blocks, logsumexp given", "rows and keys, logsumexp given")
CANDIDATES: dict[str, tuple[int, ...]] = {
    "BLOCK_Q": (64, 128), "BLOCK_K": (64, 128), "num_warps": (4, 8), "num_stages": (2, 3), "maxnreg": (128, 168, 255),
}  # fmt: skip
TOLERANCE = 2e-3
SHORT = 2048
"""Tokens of a call that is made for its kernels' sake."""
Shape = dict[str, int]


@contextmanager
def sizes(shape: Shape) -> Iterator[list[Shape]]:
    """Every launch inside with `shape` in place of its own; what launches had of their own is collected."""
    own, seen = Launch.sizes, []

    def changed(self: Launch, fields: Collection[str] = ()) -> dict[str, Any]:
        found = own(self, fields)
        seen.append({name: found.get(name, 255) for name in CANDIDATES})
        return found | shape

    Launch.sizes = changed  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Launch.sizes = own  # type: ignore[method-assign]


def candidates(*, cells: bool) -> list[Shape]:
    """Every shape worth a try, likely ones first; cells of a block map are 64 keys wide."""
    found = [dict(zip(CANDIDATES, one, strict=True)) for one in itertools.product(*CANDIDATES.values())]
    found = [one for one in found if one["num_warps"] == 8 or one["BLOCK_Q"] * one["BLOCK_K"] < 1 << 14]
    found = [one for one in found if not (one["BLOCK_Q"] == 64 and one["num_warps"] == 8)]
    if cells:
        found = [one for one in found if one["BLOCK_K"] == 64]
    return sorted(found, key=lambda one: (one["BLOCK_K"] != 64, one["num_stages"] != 2))


def compiled(what: str, shapes: list[Shape], asked: bench.Sizes, workers: int) -> None:
    """Have every shape compiled, by several processes at once: what they make is kept on disk."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_compiled_one, what, asked), shapes))


def _compiled_one(what: str, asked: bench.Sizes, shape: Shape) -> None:
    needs, given = SETS[what]
    inputs = bench.call_of(asked, SHORT, "cuda")
    known = with_logsumexp(inputs) if given else None
    with sizes(shape), suppress(Exception):  # told when its turn to be timed comes
        triton_stats(inputs, needs, logsumexp=None if known is None else known[1])


def measured(what: str, inputs: Any, device: str, repeats: int, until: float) -> Iterator[dict[str, Any]]:
    """A row for each shape of one set of statistics."""
    needs, given = SETS[what]
    known = with_logsumexp(inputs) if given else None
    logsumexp = None if known is None else known[1]

    def call() -> dict[str, Tensor]:
        return triton_stats(inputs, needs, logsumexp=logsumexp)

    with sizes({}) as seen:
        expected = call()
    own = median(timed(call, device, repeats))
    flash = median(timed(lambda: bench._sdpa(inputs), device, repeats))
    base = {"set": what, "flash_ms": round(1e3 * flash, 3)}
    yield (
        base
        | seen[-1]
        | {"ms": round(1e3 * own, 3), "ratio": 1.0, "over_sdpa": round(own / flash, 2), "note": "in use"}
    )
    for shape in candidates(cells="pooled_mean" in needs):
        if time.monotonic() > until:
            return
        with sizes(shape):
            try:
                note = differing(call(), expected)
                took = median(timed(call, device, repeats))
            except Exception as error:
                yield base | shape | {"note": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:90]}"}
                continue
        yield base | shape | {
            "ms": round(1e3 * took, 3), "ratio": round(took / own, 2), "over_sdpa": round(took / flash, 2), "note": note
        }  # fmt: skip


def timed(call: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Seconds of some calls after a warm one."""
    seconds_of(call, device)
    return side_by_side({"call": call}, repeats, device=device)["call"]


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Which statistics another shape changes by more than rounding."""
    wrong = [
        name
        for name in sorted(found.keys() - {"argmax_key"})
        if not torch.allclose(found[name].float(), expected[name].float(), rtol=TOLERANCE, atol=TOLERANCE)
    ]
    return f"wrong: {', '.join(wrong)}" if wrong else ""


def main(words: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=MAIN, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=400, help="when to stop")
    parser.add_argument("--workers", type=int, default=12, help="processes that compile")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(words)
    asked = bench.Sizes((args.length,), args.heads, args.kv_heads or args.heads, args.width)
    started = time.monotonic()
    inputs = bench.call_of(asked, args.length, args.device)
    if args.device == "cuda":
        for what in args.sets:
            compiled(what, candidates(cells="pooled_mean" in SETS[what][0]), asked, args.workers)
    rows: list[dict[str, Any]] = []
    for number, what in enumerate(args.sets, 1):  # an equal share of the time for each set
        for row in measured(what, inputs, args.device, args.repeats, started + args.seconds * number / len(args.sets)):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
            if args.out is not None:
                pd.DataFrame(rows).to_csv(args.out, index=False)
    frame = pd.DataFrame(rows)
    for what, some in frame.groupby("set", sort=False):
        print(f"\n{what}: {args.length} tokens, {args.heads} heads of {args.width}")
        print(some.drop(columns="set").sort_values("ms").head(8).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
