"""The command line of this room: `data`, `show`, `compare`, `rhythm`, `policy` and `taxonomy`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .baselines import KINDS, kind_words, links_of
from .errors import UserError, near_miss
from .policy_verbs import policy_arguments as policy_arguments
from .policy_verbs import policy_run as policy_run
from .taxonomy_verbs import taxonomy_arguments as taxonomy_arguments
from .taxonomy_verbs import taxonomy_run as taxonomy_run
from .terminal import at_least, print_table, teach

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run

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

SHOW_HELP = """\
examples:
  headatlas show latest
  headatlas show latest --probe induction --top 10
  headatlas show gpt2-repeats --probe induction --stratum "length=128" --format csv
  headatlas show latest --against random
  headatlas show latest --probe retrieval --kv-heads max

RUN is an id, a unique prefix of one, or latest. `mean` is over examples; the interval is 95 %, over clusters of
examples (n), and absent below 5 clusters; `reliability` is how well the order of heads repeats between two halves of
the clusters, 1 at best. No row mixes lengths that are a factor of two or more apart.

--against shows the paired difference to the same prompts with random weights, or with their tokens shuffled, which
`headatlas measure ... --baselines` measures: its mean over examples with a 95 % interval; `effect`, how many standard
deviations of the baseline's heads the head lies from their mean; `q`, the Benjamini-Hochberg adjusted p of a sign-flip
test over all heads of the row's probe, part and stratum. Largest effects first, of either sign.
exit codes: 0 shown, 1 a file of the run is damaged, 2 there is no such run, probe or stratum.
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


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas show`."""
    teach(parser, "A run in the terminal: what was run, and the heads with the highest means of each probe.", SHOW_HELP)
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help="run id, unique prefix, or latest")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--probe", help="only this probe; without it, the run and the top heads of every probe")
    parser.add_argument("--stratum", help='only this stratum, such as "length=512" (default: each of them)')
    parser.add_argument("--against", choices=tuple(KINDS), help="subtract this baseline: random weights, or shuffled")
    parser.add_argument(
        "--top", type=at_least(1), help="heads per probe, part and stratum (default: 20, or 3 without --probe)"
    )
    parser.add_argument(
        "--kv-heads", choices=("max", "mean"), help="one row per KV head: the max or mean of its query heads"
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")


def show_run(args: argparse.Namespace) -> int:
    """Print the top heads of a run."""
    from .ranking import NUMERIC, readable, readable_against, records, top_effects, top_heads
    from .store import open_store

    run, count = open_store(args.store).run(args.run, holding=args.probe), args.top or (20 if args.probe else 3)
    if args.against and args.kv_heads:
        raise UserError("--against compares query heads; leave out --kv-heads")
    if args.against:
        top = top_effects(_of_stratum(run.id, run.against(args.against, args.probe), args.stratum), count)
    else:
        heads = run.kv_heads(args.probe, together=args.kv_heads) if args.kv_heads else run.heads(args.probe)
        top = top_heads(_of_stratum(run.id, heads, args.stratum), count, kv=bool(args.kv_heads))
    if args.format == "json":
        print(json.dumps(records(top), ensure_ascii=False, indent=1))
        return 0
    if args.format == "csv":
        print(top.to_csv(index=False, lineterminator="\n"), end="")
        return 0
    if not args.probe:
        _print_summary(run)
    if len(top):
        shown = readable_against(top) if args.against else readable(top)
        print_table(list(shown), shown.itertuples(index=False, name=None), right=NUMERIC)
    else:
        print("no values yet")
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


def _of_stratum(run: str, heads: pd.DataFrame, stratum: str | None) -> pd.DataFrame:
    """The rows of one stratum, or all of them; an unknown one is refused with those there are."""
    if stratum is None:
        return heads
    known = list(dict.fromkeys(heads["stratum"]))
    if stratum not in known:
        raise UserError(
            f"run {run} has no stratum {stratum!r}.{near_miss(stratum, known)} "
            f"Expected one of {', '.join(known) or 'none'}"
        )
    return heads.loc[heads["stratum"] == stratum, :]


def _print_summary(run: Run) -> None:
    from .intervals import MIN_CLUSTERS
    from .summary import NO_TOKENS

    header, missing = run.header, len(run.missing())
    model, data = header["model"], header["data"]
    heads = f"{model.get('layers', '?')} layers of {model.get('heads', '?')} heads"
    error = f" ({header['error']})" if header.get("error") else ""
    gaps = f"; {missing} chunks missing" if missing else ""
    print(f"{run.id}: {run.status}{error}")
    print(f"  model    {model['name']}, {heads}, {header['dtype']}")
    prompts = f"{data['spec']}, {data['examples']} examples, seed {header['seed']}, BOS {header['bos']}"
    print(f"  data     {'the weights alone, no prompts' if data['spec'] == NO_TOKENS else prompts}")
    if data["spec"] != NO_TOKENS and data["examples"] < MIN_CLUSTERS:
        print(f"           fewer than {MIN_CLUSTERS} examples have no interval")
    if header.get("said"):
        print(f"  edited   {header['said']}")
    print(f"  probes   {', '.join(header['probes']) or 'none'}{gaps}")
    for kind, base in run.baselines().items():
        state = "" if base.status == "done" else f", {base.status}"
        print(f"  against  {KINDS[kind]} ({base.id}{state}): --against {kind}")
    for link in links_of(header):
        print(f"  baseline {kind_words(link)} of {link['run']}")
    print()
