"""The verb `bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..data.errors import UserError, first_line, near_miss
from ..data.terminal import at_least, print_table, teach

BENCH_HELP = """\
examples:
  headatlas bench
  headatlas bench kernels --lengths 512,2048
  headatlas bench model --lengths 4096 --widths 64 --repeats 3
  headatlas bench --device cuda --out bench          bench.parquet and bench.md there
  headatlas bench kernels --device cuda --lengths 8192 --heads 32 --kv-heads 8
  headatlas bench model --model llama-8b --device cuda --lengths 32768 --repeats 5
"""


def _counts(text: str) -> list[int]:
    return [at_least(1)(word) for word in text.split(",")]


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas bench`."""
    from .early import TABLES
    from .random_models import RANDOM_MODELS

    teach(parser, "Speed and memory on this machine, as ratios taken side by side in one run.", BENCH_HELP)
    parser.add_argument("table", nargs="*", help=f"which tables: {', '.join(TABLES)} (default: all)")
    parser.add_argument("--lengths", type=_counts, help="token counts, comma-separated")
    parser.add_argument("--heads", type=at_least(1), help="query heads of the kernels table (default: 8; on cuda 32)")
    parser.add_argument("--kv-heads", type=at_least(1), help="its key-value heads (default: as many)")
    parser.add_argument(
        "--widths", type=_counts, help="head sizes (default: kernels 64, on cuda 128; model 16,64, llama-8b 128)"
    )
    parser.add_argument(
        "--model",
        choices=tuple(RANDOM_MODELS),
        default="gpt2",
        help="the random model of the model and edits tables (default: gpt2); llama-8b needs a GPU of 80 GB",
    )
    parser.add_argument(
        "--repeats",
        type=at_least(1),
        help="timed repetitions of each row (default: 5, on cuda 20); 1 for long calls: on a CPU each runs once, in a "
        "process of its own",
    )
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads (default: 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure (default: cpu)")
    parser.add_argument("--out", help="folder for bench.parquet and bench.md")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")


def bench_run(args: argparse.Namespace) -> int:
    """Measure and print the tables."""
    from .early import TABLES
    from .random_models import check_fits, free_memory

    for name in args.table:
        if name not in TABLES:
            raise UserError(f"unknown table {name!r}.{near_miss(name, TABLES)} Expected some of {', '.join(TABLES)}")
    if args.device == "cpu" and args.table != ["kernels"]:
        check_fits(args.model, args.widths, free_memory)
    if args.out and Path(args.out).is_file():
        raise UserError(f"--out {args.out}: expected a folder, came a file")

    from .bench import bench

    try:
        frame = bench(
            args.table, lengths=args.lengths, heads=args.heads, kv_heads=args.kv_heads, widths=args.widths,
            model=args.model, repeats=args.repeats, threads=args.threads, device=args.device, out=args.out,
            report=lambda line: print(f"measuring {line}", file=sys.stderr),
        )  # fmt: skip
    except AssertionError as wrong:
        raise UserError(first_line(wrong), exit_code=1) from None
    if args.json:
        print(frame.to_json(orient="records"))
    else:
        for table, rows in frame.groupby("table", sort=False):
            shown = rows.drop(columns="table").dropna(axis=1, how="all")
            print(f"\n{table}")
            print_table(list(shown), shown.itertuples(index=False, name=None))
    return 0
