"""The command line of groups of heads: `headatlas taxonomy`."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from .errors import UserError
from .terminal import at_least, print_table, teach

if TYPE_CHECKING:
    from .taxonomy import Spread, Taxonomy

TAXONOMY_HELP = """\
examples:
  headatlas taxonomy latest
  headatlas taxonomy organism-pico-lm-repeats --clusters 5 --heads
  headatlas taxonomy organism-pico-lm-repeats organism-pico-lm-text organism-pico-lm-weights
  headatlas taxonomy latest --method kmeans --json

Each reading is standardised over heads, and every family of readings weighs the same; where a head has no value the
median stands in. The number of clusters is that of the largest silhouette. `z` is how many deviations over heads the
cluster's mean is from that of all heads.

Stability is the adjusted Rand index between the clusters found on resamples of two different halves of the prompts
(1: the same, 0: chance), beside that of readings shuffled over heads; brackets hold the middle 95 % of the draws.
exit codes: 0 shown, 2 there is no such run or stratum, or nothing to group.
"""


def taxonomy_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas taxonomy`."""
    teach(parser, "The heads of a model in groups by their readings, and how far the groups repeat.", TAXONOMY_HELP)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="one or more runs of one model")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--clusters", default="auto", help="how many, or auto (default)")
    parser.add_argument("--method", choices=("agglomerative", "kmeans"), default="agglomerative", help="default: Ward")
    parser.add_argument("--stratum", help="readings of this stratum (default: the length with most examples)")
    parser.add_argument("--draws", type=at_least(1), default=100, help="pairs of resamples (default: 100)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the resamples (default: 0)")
    parser.add_argument("--heads", action="store_true", help="also a line for each head")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def taxonomy_run(args: argparse.Namespace) -> int:
    """Group the heads and print the groups."""
    from .store import open_store
    from .taxonomy import taxonomy

    if args.clusters != "auto" and not args.clusters.isdecimal():
        raise UserError(f"--clusters: expected a whole number or auto; came {args.clusters!r}")
    store = open_store(args.store)
    found = taxonomy(
        [store.run(ref) for ref in args.runs], clusters=args.clusters, method=args.method, stratum=args.stratum,
        draws=args.draws, seed=args.seed,
    )  # fmt: skip
    if args.json:
        print(json.dumps(_record(found), ensure_ascii=False, indent=1))
        return 0
    _print_groups(found)
    if args.heads:
        print()
        rows = found.heads[["name", "cluster", "silhouette"]].itertuples(index=False, name=None)
        print_table(("head", "cluster", "silhouette"), [(name, one, f"{own:.2f}") for name, one, own in rows])
    return 0


def _print_groups(found: Taxonomy) -> None:
    held = found.features
    rows = [
        (
            str(row["cluster"]), row["name"], str(row["size"]),
            "  ".join(f"{name} {z:+.1f}" for name, z in row["readings"]), " ".join(row["members"]),
        )
        for row in found.clusters.to_dict("records")
    ]  # fmt: skip
    print_table(("cluster", "name", "heads", "stands out by (z)", "members"), rows, right=("heads",))
    families = len({one.family for one in held.features})
    print(f"\n{len(held.places)} heads, {len(held.features)} readings of {families} families, {found.method}; "
          f"strata {', '.join(held.strata)}")  # fmt: skip
    print(f"silhouette {found.silhouette:.2f}; shuffled readings {_said(found.null_silhouette)}")
    print(f"stability {_said(found.stability)}; shuffled readings {_said(found.null)}: {found.verdict}")
    if held.imputed:
        count = sum(held.imputed.values())
        print(f"median in place of {count} undefined values, in {', '.join(held.imputed)}")
    for name, why in held.dropped.items():
        print(f"left out {name}: {why}")


def _said(one: Spread) -> str:
    return "-" if math.isnan(one.mean) else f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}] (n {one.n})"


def _record(found: Taxonomy) -> dict[str, object]:
    """Everything as JSON values; undefined is None."""
    held = found.features
    spreads = {name: _plain(asdict(getattr(found, name))) for name in ("null_silhouette", "stability", "null")}
    return {
        "heads": found.heads.to_dict("records"),
        "clusters": found.clusters.to_dict("records"),
        "silhouette": found.silhouette,
        **spreads,
        "verdict": found.verdict,
        "method": found.method,
        "features": [{"name": one.name, "family": one.family} for one in held.features],
        "imputed": held.imputed,
        "dropped": held.dropped,
        "strata": held.strata,
    }


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
