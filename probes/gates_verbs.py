"""The command line of trained gates: `headatlas gates`."""

from __future__ import annotations

import argparse
import json
import sys

from ..data.terminal import at_least, number_above, print_table, teach
from .model_argument import add_model, load_model

GATES_HELP = """\
examples:
  headatlas gates organism:pico-lm --data secrets:lengths=128
  headatlas gates gpt2 --data needle:lengths=512 --sinks 64 --recent 256 --steps 2000

Trains one gate for each KV head as DuoAttention does, on the answers of the prompts: 1 keeps the full cache, 0 leaves
--sinks first and --recent last tokens. Every fold of the prompts trains gates of its own; the interval is over folds.
`headatlas measure MODEL --probes streaming_swap` asks the same by swapping one KV head at a time, without training.
exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
"""


def gates_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas gates`."""
    teach(parser, "Which KV heads need a full cache: DuoAttention's gates, trained on this model.", GATES_HELP)
    add_model(parser)
    parser.add_argument("--data", default="needle", help="prompts with answers (default: needle)")
    parser.add_argument("--examples", type=at_least(1), default=60, help="prompts in all (default: 60)")
    parser.add_argument("--sinks", type=at_least(0), default=4, help="first tokens a streaming head keeps (default: 4)")
    parser.add_argument("--recent", type=at_least(1), default=16, help="last tokens it keeps (default: 16)")
    parser.add_argument("--steps", type=at_least(1), default=400, help="steps of Adam (default: 400; the paper: 2000)")
    parser.add_argument("--folds", type=at_least(1), default=5, help="trainings, each on its own prompts (default: 5)")
    parser.add_argument(
        "--price",
        type=number_above(0, or_equal=True),
        default=0.05,
        help="weight of the mean gate in the loss (default: 0.05)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of prompts and batches (default: 0)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the run as JSON")


def gates_run(args: argparse.Namespace) -> int:
    """Train, and print the highest gates and how many are open."""
    from ..data.ranking import NUMERIC, readable, top_heads
    from .early import check_model, check_tokens

    check_model(args)
    check_tokens(args.data, ("answer",), "gates are trained on answers")

    from .gates import NAME, Settings, carry_out, plan_gates
    from .once import stored
    from .progress import Bar

    settings = Settings(args.sinks, args.recent, args.steps, args.folds, args.price)
    plan = plan_gates(load_model(args), args.data, settings, examples=args.examples, seed=args.seed, bos=args.bos)
    if (held := stored(plan, args.store)) is not None:
        print(f"{plan.plan.title}: trained already, in {held.id}", file=sys.stderr)
    with Bar(settings.folds * settings.steps, lines=True) as bar:
        run = held or carry_out(plan, args.store, report=bar)
    if args.json:
        print(json.dumps({"run": run.id, "status": run.status, "path": str(run.path)}))
        return 0
    shown = readable(top_heads(run.heads(NAME), 10))
    print_table(list(shown), shown.itertuples(index=False, name=None), right=NUMERIC)
    whole = run.kv_heads(NAME)
    for stratum, here in whole.groupby("stratum", sort=False):
        print(f"{stratum}: {(here['mean'] >= 0.5).sum()} of {len(here)} KV heads at 0.5 or above")
    print(f"Next: headatlas show {run.id} --kv-heads max --store {args.store}")
    return 0
