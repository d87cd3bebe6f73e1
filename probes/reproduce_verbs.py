"""The command line of `headatlas reproduce`."""

from __future__ import annotations

import argparse
from typing import Any

from ..data.errors import UserError
from ..data.terminal import at_least, print_table, teach
from .model_argument import add_loading, load_model

REPRODUCE_HELP = """\
examples:
  headatlas reproduce
  headatlas reproduce sink-table gpt2-xl
  headatlas reproduce massive-activations meta-llama/Llama-2-7b-hf --data redpajama.jsonl
  headatlas reproduce streaming-perplexity meta-llama/Llama-2-13b-hf --data text:length=2048,file=book.txt
  headatlas reproduce sink-table organism:pico-lm --examples 32
  headatlas reproduce retrieval-heads organism:pico-lm --data secrets:lengths=128+256 --examples 60

The runs land in the store and are not measured again. A model the paper does not have has no paper value. Where the
paper's data are not ours the table says so; --data takes them from a file of yours.
"""


def reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas reproduce`."""
    teach(parser, "Published numbers measured again: paper value, ours, the difference.", REPRODUCE_HELP)
    parser.add_argument("table", nargs="?", help="which table; without it, the tables there are")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a hub id, a folder, or organism:NAME")
    add_loading(parser)
    parser.add_argument("--data", help="other data than the table's own: the paper's in a file, or an organism's words")
    parser.add_argument("--examples", type=at_least(1), help="prompts of each run (default: the table's number)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the prompts (default: 0)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    parser.add_argument("--markdown", action="store_true", help="the list of tables of the README")


def reproduce_run(args: argparse.Namespace) -> int:
    """List the tables, or measure one."""
    from .reproduce import markdown_of_tables, reproduce
    from .table import all_tables, find_table

    if args.table is None:
        if args.markdown:
            print(markdown_of_tables())
            return 0
        print_table(("table", "what"), [(one.name, one.title) for one in all_tables().values()])
        print("\nheadatlas reproduce TABLE names its paper's models; on a model that comes with the package:")
        for one in all_tables().values():
            print(f"  {one.on_organism}")
        return 0
    table = find_table(args.table)
    if args.model is None:
        raise UserError(f"{table.name}: expected a model, such as {', '.join(table.models)}; or `{table.on_organism}`")
    table.data_of(args.data)
    model = load_model(args)
    frame = reproduce(model, table.name, examples=args.examples, data=args.data, store=args.store, seed=args.seed)
    if args.json:
        print(frame.to_json(orient="records"))
        return 0
    print(f"{table.title}\n{table.source}\n")
    lines = [_line(row) for row in frame.to_dict("records")]
    print_table(("quantity", "paper", "ours", "95 %", "difference", "n", "run"), lines)
    print()
    for ours, theirs in frame[["data", "paper_data"]].drop_duplicates().itertuples(index=False):
        print(f"data: {ours}; the paper: {theirs}")
    print(f"unlike the paper: {table.unlike}")
    if not table.values_for(model):
        print(f"the paper's numbers are of {', '.join(table.models)}; it has none of {model.name}")
    return 0


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    """A row for people; an undefined number is a dash."""
    return (
        row["quantity"], _rounded(row["paper"]), _rounded(row["ours"]), _interval(row["ci_low"], row["ci_high"]),
        _rounded(row["difference"]), str(row["n"]), row["run"],
    )  # fmt: skip


def _interval(low: float, high: float) -> str:
    return "-" if low != low else f"{_rounded(low)} .. {_rounded(high)}"


def _rounded(value: float) -> str:
    return "-" if value != value else f"{value:.2f}"
