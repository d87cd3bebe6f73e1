"""The command line of named interventions: `headatlas tune`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..data.errors import UserError
from ..data.heads import parse_head
from ..data.terminal import at_least, print_table, teach
from .edit_verbs import number, readable
from .model_argument import add_model, load_model

if TYPE_CHECKING:
    import pandas as pd

    from .methods.tune import Tuned

TUNE_HELP = """\
examples:
  headatlas tune organism:pico-lm zero-tuning --data secrets:lengths=512 --examples 40
  headatlas tune organism:pico-lm zero-tuning --data secrets:lengths=512 --score answer_entropy    without labels
  headatlas tune gpt2 act --data needle:lengths=256 --leave-out 0,1,-1
  headatlas tune organism:pico-lm pasta --data secrets --group needle --grid 0.5,0.9,0.95
  headatlas tune organism:pico-lm greedy --kind zero --k 3 --goal worse --data secrets:lengths=128

methods:
  zero-tuning  the weight on the first token times gamma, in the heads for which gamma above (or below) 1 helps
               [--up 2 --down 0.5 --grid 0.1,...,4 --across-layers]
  act          hidden sinks lose weight, in the heads for which that helps alone
               [--amount 0.4 --threshold 5/N --leave-out 0,1,-1]
  pasta        every key of the prompt but those of a group counts alpha times [--group user --grid 0.9,0.95 --heads]
  greedy       up to k heads whose edit moves the score most, one after another [--k 4 --goal better --kind zero, and
               what the kind takes: --amount --from-group --to-group --sinks --recent --threshold]

Half of the prompts (by cluster) choose, the other half is reported on: the model as it is, with the chosen edit, with
--sets random sets of as many heads and the same edit, and with all other heads. Differences are paired by prompt, with
a 95 % interval over prompts; it does not speak of other draws of the halves. All forwards are stored as runs, so the
same command again goes on where it was.
exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
"""
LONGEST = 12
"""Rows of a search that are shown."""


def tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas tune`."""
    teach(parser, "Choose an edit by a named method, and see what it does on held-out prompts.", TUNE_HELP)
    add_model(parser)
    parser.add_argument("method", metavar="METHOD", help="zero-tuning, act, pasta or greedy")
    parser.add_argument("--data", default="needle", help="prompts; with answers these are scored (default: needle)")
    parser.add_argument("--examples", type=at_least(2), default=60, help="prompts in all (default: 60)")
    parser.add_argument("--score", help="what is chosen by (default: exact_match; without answers token_loss)")
    parser.add_argument("--grid", type=_numbers, metavar="A,B,...", help="values of gamma or alpha, above 0")
    parser.add_argument("--up", type=float, help="gamma that up-effective heads are found with")
    parser.add_argument("--down", type=float, help="gamma that down-effective heads are found with")
    parser.add_argument("--across-layers", action="store_const", const=True, help="a head index in all layers at once")
    parser.add_argument("--leave-out", type=_layers, metavar="0,1,-1", help="layers that act does not try, or none")
    parser.add_argument("--group", help="labels to stress, as needle or user+system")
    parser.add_argument("--heads", type=_words, metavar="L5H1,...", help="heads that pasta steers (default: all)")
    parser.add_argument("--k", type=at_least(1), help="heads that greedy takes at most")
    parser.add_argument("--goal", help="better or worse")
    parser.add_argument("--kind", help="the edit of greedy (`headatlas edit --help`)")
    parser.add_argument("--amount", type=float, help="what a hidden sink keeps (act), or the amount of greedy's edit")
    parser.add_argument(
        "--from-group", metavar="GROUP",
        help="a label of tokens, `first`, or `answering` (whose next token is of the answer); a+b; all others: not:a",
    )  # fmt: skip
    parser.add_argument("--to-group", metavar="GROUP", help="as --from-group")
    parser.add_argument("--sinks", type=at_least(0), help="first keys that `mask` keeps")
    parser.add_argument("--recent", type=at_least(1), help="last keys that `mask` keeps")
    parser.add_argument("--threshold", type=float, help="what makes a hidden sink (default: 5 / tokens)")
    parser.add_argument("--sets", type=at_least(0), default=20, help="random sets of heads (default: 20)")
    parser.add_argument(
        "--seed", type=at_least(0), default=1, help="seed of prompts, halves and random sets (default: 1)"
    )
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the tables as JSON")


OPTIONS = (
    *("grid", "up", "down", "across_layers", "leave_out", "group", "heads", "k", "goal", "kind", "amount"),
    *("from_group", "to_group", "sinks", "recent", "threshold"),
)
"""Options that belong to methods."""


def tune_run(args: argparse.Namespace) -> int:
    """Search, measure on the held-out prompts, print both."""
    from .early import check_edit, check_heads, check_model, check_score_name, check_tokens
    from .methods.catalog import find_method

    kind: Any = find_method(args.method)
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    takes = [one.name for one in fields(kind)]
    for name in given:
        if name not in takes:
            flags = ", ".join(f"--{one.replace('_', '-')}" for one in takes)
            raise UserError(f"{args.method} takes {flags}; came --{name.replace('_', '-')}")
    method = kind(**given)
    check_model(args)
    check_score_name(args.score)
    check_tokens(args.data, (getattr(method, "group", None),), args.method)
    if args.method == "greedy":
        check_edit(args, method.edit([(0, 0)]))
    check_heads(args, map(parse_head, args.heads or ()), args.method)

    from .methods.tune import tune

    found = tune(
        method, load_model(args), args.data, examples=args.examples, score=args.score, sets=args.sets,
        seed=args.seed, bos=args.bos, store=args.store, say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if args.json:
        tables = {
            name: json.loads(getattr(found, name).to_json(orient="records")) for name in ("heads", "grid", "table")
        }
        runs = {name: run.id for name, run in found.runs.items()}
        edit = found.edit.card() if found.edit else None
        print(json.dumps({"edit": edit, "score": found.score, "n": found.n, "runs": runs, **tables}))
        return 0
    _print(found, args.sets)
    last = "edited" if found.edit else "unedited"
    print(f"Next: headatlas show {found.runs[last].id} --store {args.store}")
    return 0


def _print(found: Tuned, sets: int) -> None:
    """The search, then the held-out prompts."""
    print(f"chosen by {found.score} on {found.n[0]} prompts (gain: how much better than the model as it is)")
    for table in (_most(found.heads), found.grid):
        if len(table):
            print_table(list(table), [[_cell(one) for one in row] for row in table.itertuples(index=False)])
    if len(found.heads) > LONGEST:
        print(f"{LONGEST} of {len(found.heads)} rows; --json has all")
    if found.edit is None:
        print("nothing was better than the model as it is, so nothing is edited")
    else:
        print(f"chosen: {found.edit.spelled}")
    random = f"; random sets: {sets} of as many heads, from {found.drawn_from}" if "random" in found.runs else ""
    print(f"\non {found.n[1]} held-out prompts{random}")
    rows = readable(found.table)
    print_table(list(rows[0]), [tuple(row.values()) for row in rows], right=("mean", "effect", "n"))


def _most(heads: pd.DataFrame) -> pd.DataFrame:
    """The rows with the largest gain, where there are many."""
    gains = [name for name in heads if name.startswith("gain")]
    if len(heads) <= LONGEST:
        return heads
    return heads.loc[heads[gains].max(axis=1).sort_values(ascending=False, kind="stable").index[:LONGEST]]


def _cell(value: Any) -> str:
    return number(value, ".4g") if isinstance(value, float) else str(value)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers joined by commas, as 0.5,1,2; came {text!r}") from None


def _layers(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected layers joined by commas, as 0,1,-1, or none; came {text!r}"
        ) from None


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
