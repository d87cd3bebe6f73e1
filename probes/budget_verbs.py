"""The command line of head budget curves: `headatlas budget`."""

from __future__ import annotations

import argparse
import json

from ..data.terminal import at_least, print_table, teach
from .edit_verbs import number
from .model_argument import add_model, load_model

BUDGET_HELP = """\
examples:
  headatlas measure organism:pico-lm --probes all --data secrets:lengths=128 --examples 60
  headatlas budget organism:pico-lm latest --data secrets:lengths=128
  headatlas budget organism:pico-lm latest:retrieval/score latest:streaming_recall/4+16 --data secrets:lengths=128

Edits the highest head of a reading, then the two highest, four, ... all, and scores the model each time; the same in
random orders. `area` is the mean of (score in random order - score in the reading's order) over the share of heads
edited, with a 95 % interval over prompts: how well the reading finds the heads that matter for this task. `chance` is
the share of random orders that do as well; `to half` the fewest heads after which half of the effect is there; `heads`
how many heads the reading has values of, where the others follow in random order. The run is kept: the page Edits of
`headatlas serve` draws it again, and so does `ha.budget_figure(ha.stored_budget(run))`.
exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
"""


def budget_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas budget`."""
    teach(parser, "Which reading finds the heads that matter? Scores against the number of heads edited.", BUDGET_HELP)
    add_model(parser)
    parser.add_argument("reading", nargs="+", metavar="READING", help="RUN:PROBE/PART@STRATUM, or a RUN: all it holds")
    parser.add_argument("--kind", default="mean", help="what is done to the heads (default: mean)")
    parser.add_argument("--score", help="the score of the curve (default: exact match, or the loss)")
    parser.add_argument("--data", default="needle", help="prompts to score (default: needle)")
    parser.add_argument("--examples", type=at_least(1), default=40, help="prompts in all (default: 40)")
    parser.add_argument("--orders", type=at_least(2), default=10, help="random orders (default: 10)")
    parser.add_argument("--top", type=at_least(1), default=20, help="readings shown (default: 20)")
    parser.add_argument("--seed", type=at_least(0), default=1, help="seed of prompts and random orders (default: 1)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="scores and curves as JSON")


def budget_run(args: argparse.Namespace) -> int:
    """Run the curves and print the readings, the best first."""
    from ..data.selection import orders_of
    from ..data.store import open_store
    from .early import check_edit, check_model, check_score_name
    from .edits.edit import Edit

    edit = Edit(args.kind)
    check_model(args)
    check_edit(args, edit)
    check_score_name(args.score)
    store = open_store(args.store)
    orders, used = orders_of(store, args.reading)

    from .budget import budget, points
    from .causal import prompts
    from .progress import Bar
    from .scores import check_score

    model = load_model(args)
    options = {"examples": args.examples, "bos": args.bos}
    plan, _ = prompts(model, args.data, seed=args.seed, without=used, **options)
    others, _ = prompts(model, args.data, seed=args.seed + 1000, **options)
    check_score(args.score, plan)
    forwards = len(plan.data.examples) * len(points(plan, orders, args.orders)[1])
    with Bar(forwards, lines=True, unit="forwards") as bar:
        found = budget(
            plan, edit, orders, store=args.store, score=args.score, random_orders=args.orders,
            means_plan=others, report=bar,
        )  # fmt: skip
    if args.json:
        tables = {"scores": found.scores, "curves": found.curves}
        print(json.dumps({name: json.loads(str(table.to_json(orient="records"))) for name, table in tables.items()}))
        return 0
    count = f"{len(plan.data.examples)} prompts that no reading was made on"
    print(f"{args.kind} of heads, {found.score} on {plan.title}, {count}")
    rows = [
        (
            row["reading"], number(row["area"], "+.3f"),
            f"{number(row['ci_low'], '+.3f')} .. {number(row['ci_high'], '+.3f')}", number(row["chance"], ".2f"),
            number(row["to_half"], ".0f"), str(row["named"]), str(row["n"]),
        )
        for row in found.scores.head(args.top).to_dict("records")
    ]  # fmt: skip
    names = ("reading", "area", "95 %", "chance", "to half", "heads", "n")
    print_table(names, rows, right=("area", "chance", "to half", "heads", "n"))
    print(
        f"Next: headatlas serve --store {args.store}   or   "
        f"ha.stored_budget(ha.open_store({args.store!r}).run({found.run.id!r}))"
    )
    return 0
