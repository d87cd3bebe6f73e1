"""The command line of learned probes: `headatlas learn`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..data.terminal import at_least, number_above, print_table, teach
from .model_argument import add_model, load_model

if TYPE_CHECKING:
    from ..data.run import Run

LEARN_HELP = """\
examples:
  headatlas learn organism:pico-lm --data topic --label label
  headatlas learn organism:pico-lm --data topic --label label --control word
  headatlas learn gpt2 --data text:length=64 --label domain --at mean --examples 200
  headatlas learn gpt2 --data reviews.jsonl --label stars --folds 10

--label names a condition of the examples, in a .jsonl file a key of "conditions" (or answer, wrong_answer, partner):
  {"id": "a", "text": "a dull film", "cluster": "review 1", "conditions": {"stars": 1}}

From the output of each head, and of all heads of each layer together, a logistic regression learns the label, five
times without a fifth of the clusters, and is asked about those: `accuracy`. `control` is the same for labels drawn at
random per cluster, or per value of --control (Hewitt and Liang), `selectivity` the difference, `baseline` the share of
the most frequent label. With last and mean the answers are not given to the model. The run lands in the store: show,
compare, serve and taxonomy read it, with --baselines `show --against random` too. A head that carries a label need not
use it.
exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
"""


def learn_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas learn`."""
    teach(parser, "What a linear probe can read off each head and layer, with a control task.", LEARN_HELP)
    add_model(parser)
    parser.add_argument("--data", required=True, help="a data set with labels, or a .jsonl file")
    parser.add_argument("--label", required=True, metavar="CONDITION", help="the condition to be told")
    parser.add_argument(
        "--at", choices=("last", "mean", "answer"), default="last",
        help="the head's output at the last token of the prompt, its mean over the prompt, or over the answer",
    )  # fmt: skip
    parser.add_argument("--examples", type=at_least(1), default=256, help="prompts in all (default: 256)")
    parser.add_argument("--folds", type=at_least(2), default=5, help="folds of whole clusters (default: 5)")
    parser.add_argument(
        "--control", default="cluster", metavar="CONDITION", help="what gets one control label (default: cluster)"
    )
    parser.add_argument("--controls", type=at_least(1), default=5, help="draws of the control labels (default: 5)")
    parser.add_argument(
        "--penalty", type=number_above(0), default=1.0, help="inverse strength of the L2 penalty, C (default: 1.0)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="seed of prompts, folds and control labels (default: 0)"
    )
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--batch-tokens", type=at_least(1), default=8192, help="tokens of one forward (default: 8192)")
    parser.add_argument("--baselines", action="store_true", help="also from the model with random weights")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; learn nothing")
    parser.add_argument("--json", action="store_true", help="the run as JSON")


def learn_run(args: argparse.Namespace) -> int:
    """Learn, and print the best heads and every layer."""
    from .early import check_model, check_tokens

    check_model(args)
    check_tokens(args.data, ("answer",) if args.at == "answer" else (), "--at answer")

    from .learn import Settings, carry_out, plan_learning, random_plan
    from .progress import Bar
    from .wording import learn_text

    settings = Settings(args.label, args.at, args.folds, args.control, args.controls, args.penalty)
    plan = plan_learning(
        load_model(args), args.data, settings, examples=args.examples, seed=args.seed, bos=args.bos,
        batch_tokens=args.batch_tokens,
    )  # fmt: skip
    print(learn_text(plan, args.store), file=sys.stderr)
    if args.baselines:
        print("and all of it once more with random weights", file=sys.stderr)
    if args.dry_run:
        return 0
    with Bar(plan.steps * (1 + args.baselines), lines=True, unit="forwards and fits") as bar:
        run = carry_out(plan, args.store, report=bar)
        if args.baselines:
            carry_out(random_plan(plan), args.store, report=bar)
    if args.json:
        print(json.dumps({"run": run.id, "status": run.status, "path": str(run.path)}))
        return 0
    _print_run(run)
    against = " --against random" if args.baselines else ""
    shown, grouped = f"headatlas show {run.id}{against}", f"headatlas taxonomy {run.id}"
    print(f"Next: {shown} --store {args.store}   or   {grouped} --store {args.store}")
    return 0


def _print_run(run: Run, top: int = 5) -> None:
    """The `top` heads by accuracy and each layer, stratum by stratum."""
    from .learn import NAME, best_rows

    count, labels = run.header["data"]["examples"], run.header["probes"][NAME]["labels"]
    print(f"{run.id}  {run.status}  {count} examples, {len(labels)} labels: {' '.join(labels[:8])}")
    rows = best_rows(run, top)
    print_table(
        list(rows[0]),
        [tuple(row.values()) for row in rows],
        right=("accuracy", "control", "baseline", "selectivity", "n"),
    )
