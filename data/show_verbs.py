"""The command line of `show`: a run in the terminal, on one screen unless more is asked for."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .baselines import KINDS, kind_words, links_of
from .errors import UserError, near_miss
from .terminal import at_least, print_table, screen_lines, teach

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run

FEW = 3
"""More strata than these are not all shown."""
ROOM = 14
"""Lines of a screen for what stands around the table; the least number of its rows."""

SHOW_HELP = """\
examples:
  headatlas show latest
  headatlas show latest --probe induction --top 10
  headatlas show gpt2-repeats --probe induction --stratum "length=128" --format csv
  headatlas show latest --strata
  headatlas show latest --against random
  headatlas show latest --probe retrieval --kv-heads max

RUN is an id, a unique prefix of one, or latest. `mean` is over examples; the interval is 95 %, over clusters of
examples (n), and absent below 5 clusters; `reliability` is how well the order of heads repeats between two halves of
the clusters, 1 at best. No row mixes lengths that are a factor of two or more apart.

Of more than 3 strata, those of a length alone are shown, each over all of its cells (of depths, templates, ...); of
more than 3 lengths the shortest and the longest. --strata shows every stratum, --stratum one; json and csv have all.
At a terminal a run without --probe is kept to one screen: a line a reading, and as many readings as fit.

--against shows the paired difference to the same prompts with random weights, or with their tokens shuffled, which
`headatlas measure ... --baselines` measures: its mean over examples with a 95 % interval; `effect`, how many standard
deviations of the baseline's heads the head lies from their mean; `q`, the Benjamini-Hochberg adjusted p of a sign-flip
test over all heads of the row's probe, part and stratum. Largest effects first, of either sign.
exit codes: 0 shown, 1 a file of the run is damaged, 2 there is no such run, probe or stratum.
"""


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas show`."""
    teach(parser, "A run in the terminal: what was run, and the heads with the highest means of each probe.", SHOW_HELP)
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help="run id, unique prefix, or latest")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--probe", help="only this probe; without it, the run and the top heads of every probe")
    strata = parser.add_mutually_exclusive_group()
    strata.add_argument("--stratum", help='only this stratum, such as "length=512" (default: each of them, if few)')
    strata.add_argument("--strata", action="store_true", help="every stratum, however many")
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
    from .ranking import records, top_effects, top_heads
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
        shown = top if args.strata else few_strata(top)
        _print_top(shown, args)
        _print_left_out(*(list(dict.fromkeys(one["stratum"])) for one in (top, shown)))
    else:
        print("no values yet")
    return 0


def few_strata(top: pd.DataFrame) -> pd.DataFrame:
    """The rows of at most three strata of each ranking: lengths without further conditions, of many the two ends."""
    groups = top.groupby(["probe", "part", "tower"], sort=False, observed=True)
    kept = groups["stratum"].transform(lambda strata: strata.isin(shown_strata(list(dict.fromkeys(strata)))))
    return top.loc[kept.astype(bool), :]


def shown_strata(strata: list[str]) -> list[str]:
    """Which strata are shown where there are more than a few; cells of further conditions have a `;`.

    >>> shown_strata(["length=64", "length=64;depth=0", "length=64;depth=0.5", "length=64;depth=1"])
    ['length=64']
    """
    if len(strata) <= FEW:
        return strata
    lengths = [one for one in strata if ";" not in one] or strata
    return lengths if len(lengths) <= FEW else [lengths[0], lengths[-1]]


def _print_top(top: pd.DataFrame, args: argparse.Namespace) -> None:
    """The rows; at a terminal that they do not fit, a line a reading, and no more of them than fit."""
    from .ranking import NUMERIC, in_lines, readable, readable_against

    room = screen_lines() - ROOM
    shown = readable_against(top) if args.against else readable(top)
    free = args.probe or args.strata or args.stratum or args.top
    if not free and not args.against and len(shown) > room:
        shown = in_lines(top)
    count = len(shown)
    shown = shown if free else shown.head(max(room, ROOM))
    print_table(list(shown), shown.itertuples(index=False, name=None), right=NUMERIC)
    if len(shown) < count:
        print(f"{count - len(shown)} more rows: --probe NAME shows a reading, --strata all of them")


def _print_left_out(strata: list[str], shown: list[str]) -> None:
    """How many strata were not shown, and how to see them."""
    if len(shown) < len(strata):
        example = next(one for one in strata if one not in shown)
        print(f"{len(shown)} of {len(strata)} strata shown; --strata shows all, --stratum {example!r} one")


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
