"""The command line of edits: `headatlas edit`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..data.errors import UserError
from ..data.heads import parse_head
from ..data.terminal import at_least, print_table, teach
from .model_argument import add_model, load_model

if TYPE_CHECKING:
    import pandas as pd

    from ..data.selection import Selection

KIND = "mean"
"""What is done to heads by default."""
EDIT_HELP = """\
examples:
  headatlas edit organism:pico-lm --from latest:retrieval/score:top=4 --data secrets:lengths=128
  headatlas edit organism:pico-lm --heads L1H0,L1H3 --kind zero --data repeats
  headatlas edit gpt2 --kind boost --from-group first --amount 0.3 --data text:length=128
  headatlas edit organism:pico-sink --kind mask --sinks 0 --recent 16 --data bigram_backcopy
  headatlas edit organism:pico-lm --policy policy.json --data secrets:lengths=128
  headatlas edit organism:pico-lm --kind force --from-group answering --to-group needle --data secrets:lengths=128

Scores the model as it is, with these heads edited, with --sets random sets of as many heads edited, and with all other
heads edited. With --from, heads are chosen by a stored reading, and prompts of that run are left out. Differences are
paired by prompt, with a 95 % interval. `effect` is how far the difference lies from the mean of the random sets', in
standard deviations: the root of their variance plus the squared standard error over prompts, so that random sets which
hardly vary make it no larger than the prompts can tell; none below 5 random sets or 5 independent prompts, and where
neither differ. All of it is written as runs that name the unedited one as their parent.

With --policy (a file of `headatlas policy`), the query heads of its streaming KV heads see sinks and recent tokens
alone, by a mask with the tokens' own positions. Beside it stand --sets random policies with as many full KV heads,
drawn from all KV heads, and all KV heads streaming; `cache` is the share of it kept at the end of a prompt.

kinds (--kind, default mean):
{kinds}
exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
"""


def edit_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas edit`."""
    from .edits.kind import kinds_text

    said = "Edit some heads and see what becomes of the task, beside random heads."
    teach(parser, said, EDIT_HELP.format(kinds=kinds_text()))
    add_model(parser)
    parser.add_argument("--kind", help="what is done to the heads (default: mean)")
    parser.add_argument("--heads", metavar="L5H1,...", help="the heads by name (default: all)")
    parser.add_argument("--from", dest="chosen", metavar="RUN:PROBE:top=5", help="the heads by a stored reading")
    parser.add_argument("--policy", metavar="FILE", help="a cache policy, .json or .tsv, in place of an edit")
    parser.add_argument("--amount", type=float, help="how much, where the kind takes it")
    parser.add_argument(
        "--from-group", metavar="GROUP",
        help="a label of tokens, `first`, or `answering` (whose next token is of the answer); a+b; all others: not:a",
    )  # fmt: skip
    parser.add_argument("--to-group", metavar="GROUP", help="as --from-group")
    parser.add_argument("--sinks", type=at_least(0), help="first keys that `mask`, `streaming` or --policy keeps")
    parser.add_argument("--recent", type=at_least(1), help="last keys that `mask`, `streaming` or --policy keeps")
    parser.add_argument("--threshold", type=float, help="what makes a hidden sink for `act` (default: 5 / tokens)")
    parser.add_argument("--data", default="needle", help="prompts; with answers these are scored (default: needle)")
    parser.add_argument("--examples", type=at_least(1), default=60, help="prompts in all (default: 60)")
    parser.add_argument("--sets", type=at_least(0), default=20, help="random sets of heads (default: 20)")
    parser.add_argument("--spare", metavar="L0H6,...", help="heads that no random set may have")
    parser.add_argument("--seed", type=at_least(0), default=1, help="seed of prompts and random sets (default: 1)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the table as JSON")


def edit_run(args: argparse.Namespace) -> int:
    """Run the four conditions and print them beside each other."""
    from .early import check_edit, check_heads, check_model
    from .edits.edit import PARAMETERS, Edit

    check_model(args)
    if args.policy:
        return _policy_run(args)
    if args.heads is not None and not args.heads.strip():
        raise UserError("--heads: expected heads like L5H1,L6H0, came an empty word; leave --heads out for all heads")
    if args.heads and args.chosen:
        raise UserError("expected --heads or --from, not both")
    given = {name: getattr(args, name) for name in PARAMETERS if getattr(args, name) is not None}
    edit = Edit(args.kind or KIND, args.heads.split(",") if args.heads else None, **given)
    spared = [parse_head(name) for name in args.spare.split(",")] if args.spare else []
    check_edit(args, edit)
    check_heads(args, spared, "--spare")
    picked = _picked(args.store, args.chosen) if args.chosen else None
    edit = edit.of(picked.heads) if picked else edit

    from .causal import causal_report, prompts
    from .progress import Bar
    from .scores import KEPT

    model = load_model(args)
    plan, left_out = prompts(
        model, args.data, examples=args.examples, seed=args.seed, bos=args.bos, without=picked.texts if picked else ()
    )
    others, _ = prompts(model, args.data, examples=args.examples, seed=args.seed + 1000, bos=args.bos)
    forwards = len(plan.data.examples) * (3 + args.sets)  # unedited, edited, the random sets, all others
    with Bar(forwards, lines=True, unit="forwards") as bar:
        found = causal_report(
            plan, edit, store=args.store, sets=args.sets, means_plan=others, spared=spared, picked=picked,
            left_out=left_out, report=bar,
        )  # fmt: skip
    if args.json:
        print(found.table.to_json(orient="records"))
        return 0
    print(f"{edit.spelled}, {plan.title}, {len(plan.data.examples)} prompts")
    if picked:
        print(f"heads chosen by {picked.name}; {left_out} prompts left out that they were chosen on")
    if "random" not in found.runs and args.sets:
        print("random sets: none, for fewer heads are left than were chosen")
    if "random" in found.runs:
        print(f"random sets: {args.sets} of as many other heads, from {found.drawn_from}")
    if KEPT.name in found.runs["edited"].header["probes"]:
        kept = found.runs["edited"].rows(KEPT.name)["value"].to_numpy(float).mean()
        print(f"rows of these heads that had no other key for the weight and stayed as they were: {kept:.2%}")
    rows = [tuple(row.values()) for row in readable(found.table)]
    print_table(list(readable(found.table)[0]), rows, right=("mean", "effect", "n"))
    _print_no_effect(found.table)
    print(f"Next: headatlas show {found.runs['edited'].id} --store {args.store}")
    return 0


def _picked(store: str, text: str) -> Selection:
    """The heads that a stored reading names."""
    from ..data.selection import choose_heads
    from ..data.store import open_store

    return choose_heads(open_store(store), text)


def _policy_run(args: argparse.Namespace) -> int:
    """Run the four conditions of a cache policy and print them beside each other."""
    from ..data.policy_file import read_policy
    from .early import check_tokens

    names = ("kind", "heads", "chosen", "amount", "from_group", "to_group", "threshold")
    if given := [name for name in names if getattr(args, name) is not None]:
        spelled = {"chosen": "from", "from_group": "from-group", "to_group": "to-group"}
        raise UserError(f"--policy says what is done to which heads; leave out --{spelled.get(given[0], given[0])}")
    policy = read_policy(args.policy, sinks=args.sinks, recent=args.recent)
    check_tokens(args.data, (), "edit")

    from .causal import prompts
    from .policy import RANDOM_FROM, chosen_on, policy_report, streaming_edits
    from .progress import Bar

    texts = chosen_on(policy, args.store)
    model = load_model(args)
    plan, left_out = prompts(
        model, args.data, examples=args.examples, seed=args.seed, bos=args.bos, without=texts or ()
    )
    streaming_edits(policy, model)
    with Bar((3 + args.sets) * len(plan.data.examples), lines=True, unit="forwards") as bar:
        found = policy_report(plan, policy, store=args.store, sets=args.sets, report=bar)
    if args.json:
        print(found.table.to_json(orient="records"))
        return 0
    print(f"{policy.count} of {policy.heads} KV heads full, {policy.sinks} + {policy.recent} tokens for the others; "
          f"{plan.title}, {len(plan.data.examples)} prompts")  # fmt: skip
    unseen = (
        f"{left_out} prompts left out that they were chosen on"
        if texts is not None
        else "its prompts are not in this store, so none was left out"
    )
    print(f"heads chosen by {policy.source or policy.rule}; {unseen}")
    if policy.model not in ("", model.name):
        print(f"the policy was made for {policy.model}")
    if found.random:
        print(f"random policies: {found.random} with as many full KV heads, drawn from {RANDOM_FROM}")
    cache = [f"{one:.3f}" for one in found.table["cache"]]
    rows = [line | {"cache": kept} for line, kept in zip(readable(found.table), cache, strict=True)]
    print_table(list(rows[0]), [tuple(row.values()) for row in rows], right=("mean", "effect", "n", "cache"))
    _print_no_effect(found.table)
    print(f"Next: headatlas show {found.runs['policy'].id} --store {args.store}")
    return 0


def readable(table: pd.DataFrame) -> list[dict[str, str]]:
    """A report's rows for people: rounded, the interval in one column, an undefined number as a dash."""
    from ..data.causal import CHOSEN

    rows: list[dict[str, Any]] = table.to_dict("records")
    return [
        {
            "score": row["score"],
            "condition": row["condition"] + (f" ({row['sets']} sets)" if row["sets"] > 1 else ""),
            "mean": number(row["mean"]),
            "of single sets": "" if row["lowest"] != row["lowest"] else f"{row['lowest']:.3f} to {row['highest']:.3f}",
            "difference, 95 %": "" if row["condition"] == "unedited" else _difference(row),
            "effect": number(row["effect"], "+.1f") if row["condition"] in CHOSEN else "",
            "n": str(row["n"]),
        }
        for row in rows
    ]


def _print_no_effect(table: pd.DataFrame) -> None:
    """Why a chosen line has no effect, with the scores that lack it."""
    from ..data.causal import CHOSEN

    lacking = table[table["condition"].isin(CHOSEN) & (table["no_effect"] != "")]
    for why, rows in lacking.groupby("no_effect", sort=False):
        print(f"no effect, {why}: {', '.join(rows['score'])}")


def _difference(row: dict[str, Any]) -> str:
    low, high = (number(row[name], "+.3f") for name in ("ci_low", "ci_high"))
    return f"{number(row['difference'], '+.3f')} ({low} .. {high})"


def number(value: float, form: str = ".3f") -> str:
    """A number rounded; a dash where it is undefined."""
    return "-" if value != value else format(value, form)
