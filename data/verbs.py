"""The command line of this room: `data`, `compare`, `rhythm`, and with their own files `show`, `policy`, `taxonomy`."""

from __future__ import annotations

import argparse
import json

from .policy_verbs import policy_arguments as policy_arguments
from .policy_verbs import policy_run as policy_run
from .show_verbs import show_arguments as show_arguments
from .show_verbs import show_run as show_run
from .taxonomy_verbs import taxonomy_arguments as taxonomy_arguments
from .taxonomy_verbs import taxonomy_run as taxonomy_run
from .terminal import print_table, teach

DATA_HELP = """\
examples:
  headatlas data
  headatlas data --json
  headatlas measure gpt2 --data repeats:length=64+128
  headatlas measure gpt2 --data needle:lengths=512+1024,depths=0+0.5+1
  headatlas measure gpt2 --data prompts.jsonl
  headatlas measure gpt2 --data notes.txt:length=256
  headatlas measure gpt2 --data hf:NAME:SPLIT:COLUMN

A line of a .jsonl file is one prompt; `id` and one of text, messages, token_ids are needed, spans label tokens:
  {"id": "a", "text": "red blue green red blue", "answer": " green", "conditions": {"template": "colours"}}
  {"id": "b", "token_ids": [1, 5, 6, 7, 5, 6], "spans": {"repeat": [[4, 6]]}, "cluster": "b"}

NAME:key=value,key=a+b+c names a data set and its parameters; a + makes a grid, and --examples is spread evenly over
it. Lengths count all tokens of the measured model, BOS and answer included.
"""


RHYTHM_HELP = """\
examples:
  headatlas measure gpt2 --probes distance,rhythm,first_token_mass --data text:length=256 --keep-positions 32
  headatlas rhythm latest
  headatlas rhythm latest --without-first
  headatlas rhythm latest --tokens > series.csv

`by chance` is the mean over shifts of one series against the other by 8 to 24 tokens. Texts are those kept token by
token (--keep-positions); the interval is over texts, absent below 5.
"""

COMPARE_HELP = """\
examples:
  headatlas compare latest:retrieval/score@length=128 latest:retrieval/score@length=256
  headatlas compare latest:retrieval/score latest:streaming_recall/4+16 latest:induction
  headatlas compare RUN1:entropy RUN2:entropy --json

Spearman's rank correlation over heads, with a 95 % interval over prompts (n clusters of them; absent below 5), and the
heads that are in the top tenth (five at least) of both.
"""


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas data`."""
    said = "The data sets there are: what each one is, its parameters with their defaults, its source."
    teach(parser, said, DATA_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")


def data_run(args: argparse.Namespace) -> int:
    """Print the data sets."""
    from .catalog import all_datasets
    from .spec import spell

    records = all_datasets()
    if args.json:
        print(json.dumps(records, ensure_ascii=False, indent=1))
        return 0
    rows = [
        (
            record["name"],
            record["summary"],
            spell("", record["params"])[1:].replace(",", "\n"),
            ", ".join(record["strata"]),
            record["source"],
        )
        for record in records
    ]
    print_table(("name", "what", "parameters", "split by", "source"), rows)
    return 0


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas compare`."""
    teach(parser, "Whether two readings put the heads in the same order.", COMPARE_HELP)
    parser.add_argument("first", metavar="READING", help="RUN:PROBE, RUN:PROBE/PART or RUN:PROBE/PART@STRATUM")
    parser.add_argument("second", metavar="READING", nargs="+", help="one or more to set against the first")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")


def compare_run(args: argparse.Namespace) -> int:
    """Print the rank correlation of the first reading with each other one."""
    from dataclasses import asdict

    from .agreement import agreement, find_values
    from .store import open_store

    store = open_store(args.store)
    first = find_values(store, args.first)
    others = [find_values(store, text) for text in args.second]
    found = [(other.name, agreement(first, other)) for other in others]
    if args.json:
        print(json.dumps([{"first": first.name, "second": name} | asdict(one) for name, one in found], indent=1))
        return 0
    rows = [
        (
            name, f"{one.rho:.3f}", f"{one.low:.3f} .. {one.high:.3f}", f"{one.heads}", f"{min(one.clusters)}",
            f"{len(one.shared)} of {one.top} (chance {one.chance:.1f}): {' '.join(one.shared) or 'none'}",
        )
        for name, one in found
    ]  # fmt: skip
    print(f"{first.name} against")
    print_table(("reading", "Spearman", "95 %", "heads", "n", "top heads in both"), rows)
    return 0


def rhythm_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas rhythm`."""
    teach(parser, "Preplan tokens and anchors of a run's texts: WAAD, FAI and how they go together.", RHYTHM_HELP)
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help="run id, unique prefix, or latest")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument(
        "--without-first", action="store_true", help="leave the first token out of all distances: sinks are not global"
    )
    parser.add_argument("--tokens", action="store_true", help="the series token by token, as CSV")


def rhythm_run(args: argparse.Namespace) -> int:
    """Print the head sets and the coupling statistics, or the series."""
    from .rhythm import rhythm
    from .store import open_store

    found = rhythm(open_store(args.store).run(args.run), without_first=args.without_first)
    if args.tokens:
        print(found.tokens.to_csv(index=False, lineterminator="\n", float_format="%.6g"), end="")
        return 0
    print(f"local heads (shortest mean distance):  {' '.join(found.local_heads)}")
    print(f"global heads (longest mean distance):  {' '.join(found.global_heads)}\n")
    rows = [
        (
            row["statistic"], f"{row['value']:.3f}", f"{row['expected']:.3f}",
            f"{row['difference']:+.3f} ({row['ci_low']:+.3f} .. {row['ci_high']:+.3f})", str(row["n"]),
        )
        for row in found.statistics.to_dict("records")
    ]  # fmt: skip
    print_table(("share of", "found", "by chance", "difference (95 %)", "n texts"), rows)
    return 0
