"""The command line of `headatlas reproduce`."""

from __future__ import annotations

import argparse

from ..data.errors import UserError
from ..data.terminal import at_least, print_table, teach
from .model_argument import add_loading, load_model

REPRODUCE_HELP = """\
examples:
  headatlas reproduce
  headatlas reproduce sink-table gpt2-xl
  headatlas reproduce sink-table organism:pico-lm --examples 32
  headatlas reproduce retrieval-heads organism:pico-lm --data secrets:lengths=128+256 --examples 60

The runs land in the store and are not measured again. A model the paper does not have has no paper value.
"""


def reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas reproduce`."""
    teach(parser, "Published numbers measured again: paper value, ours, the difference.", REPRODUCE_HELP)
    parser.add_argument("table", nargs="?", help="which table; without it, the tables there are")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a hub id, a folder, or organism:NAME")
    add_loading(parser)
    parser.add_argument("--data", help="other data than the table's own, such as secrets:lengths=256 for an organism")
    parser.add_argument("--examples", type=at_least(1), help="prompts of each run (default: the paper's number)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts (default: 0)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")


def reproduce_run(args: argparse.Namespace) -> int:
    """List the tables, or measure one."""
    from .reproduce import RECIPES, find_recipe, reproduce

    if args.table is None:
        rows = [(one.name, one.title, one.source, " ".join(one.models)) for one in RECIPES.values()]
        print_table(("table", "what", "source", "models"), rows)
        return 0
    recipe = find_recipe(args.table)
    if args.model is None:
        raise UserError(f"{recipe.name}: expected a model, such as {recipe.models[0]} or organism:pico-lm")
    frame = reproduce(
        load_model(args), recipe.name, examples=args.examples, data=args.data, store=args.store, seed=args.seed
    )
    if args.json:
        print(frame.to_json(orient="records"))
        return 0
    print(f"{recipe.title}\n{recipe.source}\n")
    shown = [
        (
            row["quantity"], _rounded(row["paper"]), _rounded(row["ours"]),
            f"{_rounded(row['ci_low'])} .. {_rounded(row['ci_high'])}", _rounded(row["difference"]), str(row["n"]),
            row["run"],
        )
        for row in frame.to_dict("records")
    ]  # fmt: skip
    print_table(("quantity", "paper", "ours", "95 %", "difference", "n", "run"), shown)
    print(f"\nunlike the paper: {recipe.unlike}")
    return 0


def _rounded(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
