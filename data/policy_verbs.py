"""The command line of cache policies: `headatlas policy`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .errors import UserError
from .terminal import at_least, print_table, teach

if TYPE_CHECKING:
    from .policy import Policy

CONTEXTS = (1024, 8192, 32768, 131072)
"""Context lengths at which the share of the cache is printed."""

POLICY_HELP = """\
examples:
  headatlas policy latest:retrieval/score --full 0.25 --out policy.json
  headatlas policy latest:streaming_swap/4+16@length=128 --threshold 0.05 --sinks 4 --recent 16 --out policy.tsv
  headatlas policy latest:streaming_recall/4+16 --full 0.25 --lowest
  headatlas policy full_attention_heads.tsv --full 0.5 --sinks 64 --recent 256 --out policy.json

Each KV head keeps its whole cache (full), or its first --sinks and last --recent tokens (streaming). Full are the
heads with the highest readings: a KV head has the max over its query heads. With --lowest they are those with the
lowest (min over query heads): for readings such as streaming_recall, where a HIGH value says that the cache may go.

--out writes .json, which says what it is, or .tsv, a row of 1.0 (full) and 0.0 for each layer, as DuoAttention's
full_attention_heads.tsv. Gates of such a file are cut at the quantile that leaves the share --full. What becomes of a
task under a policy: `headatlas edit MODEL --policy policy.json`.
exit codes: 0 done, 2 there is no such reading or file, or it makes no policy.
"""


def policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas policy`."""
    teach(parser, "Which KV heads keep their whole cache, by a stored reading.", POLICY_HELP)
    parser.add_argument("source", metavar="READING", help="RUN:PROBE, RUN:PROBE/PART@STRATUM, or a .json or .tsv file")
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument("--full", type=float, metavar="SHARE", help="share of KV heads to keep full, 0 to 1")
    rule.add_argument("--threshold", type=float, metavar="VALUE", help="keep those full that have this value or more")
    parser.add_argument("--lowest", action="store_true", help="keep the lowest full (with --threshold: this or less)")
    parser.add_argument("--sinks", type=at_least(0), help="first tokens a streaming head keeps (default: 4)")
    parser.add_argument("--recent", type=at_least(1), help="last tokens it keeps (default: 16)")
    parser.add_argument("--out", metavar="FILE", help="write the policy: .json or .tsv")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--json", action="store_true", help="the policy as JSON instead of a table")


def policy_run(args: argparse.Namespace) -> int:
    """Make the policy, write it, and print which heads are full."""
    from .policy_file import policy_json, write_policy

    found = _policy_of(args)
    if args.out:
        write_policy(found, args.out)
    if args.json:
        print(policy_json(found), end="")
        return 0
    print(f"{found.model or 'a model that the file does not name'}, from {found.source}"
          f"{f': {found.rule}' if found.rule else ''}")  # fmt: skip
    rows = [(f"L{layer}", *_numbers(found, layer)) for layer in range(found.shape[0])]
    print_table(("layer", "full KV heads", "streaming"), rows)
    print(f"{found.count} of {found.heads} KV heads are full ({found.share:.3g}); "
          f"the others keep {found.sinks} + {found.recent} tokens")  # fmt: skip
    kept = ", ".join(f"{found.cache(tokens):.3f} at {tokens:,}" for tokens in CONTEXTS)
    print(f"share of the cache kept, by tokens of context: {kept}")
    if args.out:
        size = "" if args.out.lower().endswith(".json") else f" --sinks {found.sinks} --recent {found.recent}"
        print(f"Next: headatlas edit {found.model or 'MODEL'} --policy {args.out}{size}")
    return 0


def _policy_of(args: argparse.Namespace) -> Policy:
    """The policy that the arguments ask for, of a reading or of a file."""
    from .policy import RECENT, SINKS, policy
    from .policy_file import is_file_name, read_policy

    if not is_file_name(args.source):
        return policy(
            args.source, store=args.store, full=args.full, threshold=args.threshold, lowest=args.lowest,
            sinks=SINKS if args.sinks is None else args.sinks, recent=RECENT if args.recent is None else args.recent,
        )  # fmt: skip
    if args.threshold is not None or args.lowest:
        raise UserError("of a file the highest gates are full, by --full; --threshold and --lowest are for readings")
    return read_policy(args.source, full=args.full, sinks=args.sinks, recent=args.recent)


def _numbers(policy: Policy, layer: int) -> tuple[str, str]:
    """The full and the streaming KV heads of a layer."""
    streaming = policy.streaming(layer)
    full = [head for head in range(policy.shape[1]) if head not in streaming]
    return " ".join(map(str, full)) or "-", " ".join(map(str, streaming)) or "-"
