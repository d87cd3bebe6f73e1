"""The command line of this room: `probes`, `models`, `measure`, `look` and `train`; the other verbs have own files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..data.errors import UserError
from ..data.terminal import at_least, print_table, teach
from .bench_verbs import bench_arguments as bench_arguments
from .bench_verbs import bench_run as bench_run
from .budget_verbs import budget_arguments as budget_arguments
from .budget_verbs import budget_run as budget_run
from .edit_verbs import edit_arguments as edit_arguments
from .edit_verbs import edit_run as edit_run
from .gates_verbs import gates_arguments as gates_arguments
from .gates_verbs import gates_run as gates_run
from .learn_verbs import learn_arguments as learn_arguments
from .learn_verbs import learn_run as learn_run
from .model_argument import add_model, load_model
from .reproduce_verbs import reproduce_arguments as reproduce_arguments
from .reproduce_verbs import reproduce_run as reproduce_run
from .tune_verbs import tune_arguments as tune_arguments
from .tune_verbs import tune_run as tune_run

MEASURE_HELP = """\
examples:
  headatlas measure organism:pico-lm
  headatlas measure gpt2 --probes sink_rate,entropy --data text:length=64+256 --examples 100
  headatlas measure ./my-checkpoint --probes all --data prompts.jsonl --store runs
  headatlas measure organism:pico-lm --probes copying_score,composition     of the weights alone
  headatlas measure organism:pico-lm --probes ./mine.py:my_probe --dry-run
  headatlas measure organism:pico-lm --data repeats --baselines

Without --data there is one run for each data set that one of the probes calls its own, and in it every probe that can
be measured there; readings of weights make a run of their own (data set `weights`, no prompts). The same command again
does only what is missing, also after it was killed; more probes add to the same run.

With --baselines each run is measured twice more on the same prompts: with the weights drawn anew at random (its memory
once more), and with the tokens of each prompt shuffled, the special ones and all labels kept in place. These are runs
of their own; `headatlas show RUN --against random` and the atlas subtract them.
exit codes: 0 done, 1 failed after starting (what was written stays), 2 refused before anything ran.
"""

LOOK_HELP = """\
examples:
  headatlas look organism:pico-lm "the code of paris is red blue red blue"
  headatlas look gpt2 "When Mary and John went to the store, John gave a drink to" --probes entropy,previous_token
"""

TRAIN_HELP = """\
examples:
  headatlas train pico-sink --out my-sink
  headatlas train pico-lm --seed 1 --out my-pico

Minutes on one CPU thread (pico-sink about 8, pico-lm about 35). The same command again goes on where it stopped.
"""

MODELS_HELP = """\
examples:
  headatlas models
  headatlas models --certificate pico-lm
  headatlas models --certify pico-lm          measure the certificate again (minutes)
"""


def probes_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas probes`."""
    teach(parser, "The head readings there are.", "examples:\n  headatlas probes\n  headatlas probes sink_rate\n")
    parser.add_argument("names", nargs="*", help="names, families or globs: their cards in full")
    parser.add_argument("--json", action="store_true", help="one JSON list of cards")
    parser.add_argument("--markdown", action="store_true", help="the table of the README")


def probes_run(args: argparse.Namespace) -> int:
    """Print the table of probes and readings of weights, or some cards."""
    from .catalog import select
    from .wording import card_text, markdown_tables

    chosen = select(args.names or "all")
    if args.json:
        print(json.dumps([one.card() for one in chosen], ensure_ascii=False, indent=1))
    elif args.markdown:
        print(markdown_tables(chosen))
    elif args.names:
        print("\n\n".join(card_text(one) for one in chosen))
    else:
        rows = [(one.spelled, one.family, one.unit, one.summary, one.default_data) for one in chosen]
        print_table(("probe", "family", "unit", "what it measures", "data"), rows)
    return 0


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas models`."""
    teach(parser, "The models that come with the package.", MODELS_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON list with the certificates")
    parser.add_argument("--certificate", metavar="NAME", help="the stored certificate of one organism")
    parser.add_argument("--certify", metavar="NAME", help="measure that certificate again, on held-out prompts")


def models_run(args: argparse.Namespace) -> int:
    """Print the organisms, a certificate, or a newly measured one."""
    from .organisms import all_models, summary_rows

    if args.certify or args.certificate:
        return _show_certificate(args.certify or args.certificate, measure=bool(args.certify), as_json=args.json)
    if args.json:
        print(json.dumps(all_models(), indent=1))
        return 0
    print_table(("model", "what it is", "certificate"), summary_rows())
    print("\nAny transformers model works too: a hub id or a folder. `headatlas measure --help` shows how.")
    return 0


def _show_certificate(name: str, *, measure: bool, as_json: bool) -> int:
    from ..data.organisms.shelf import certificate
    from .organisms import certificate_table

    name = name.removeprefix("organism:")
    found = certificate(name)
    if measure:
        from .training.certify import certify

        found = certify(name)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_table(*certificate_table(found))
    return 0


def measure_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas measure`."""
    teach(parser, "Measure the heads of a model on a data set; values land in the store.", MEASURE_HELP)
    add_model(parser)
    parser.add_argument("--probes", default="all", help="names, families, globs, all, ./file.py:name (default: all)")
    parser.add_argument("--data", help="data set, .jsonl or .txt file (default: the probes' own data sets)")
    parser.add_argument(
        "--examples", type=at_least(1), default=32, help="prompts in all, spread over the data's grid (default: 32)"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of the prompts (default: 0)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--batch-tokens", type=at_least(1), default=8192, help="tokens of one forward (default: 8192)")
    parser.add_argument(
        "--keep-positions", type=at_least(0), default=8, help="examples kept token by token (default: 8)"
    )
    parser.add_argument("--baselines", action="store_true", help="also with random weights and with shuffled tokens")
    parser.add_argument(
        "--answers",
        choices=("given", "own", "right"),
        default="given",
        help="force the data's answers on the model, or let it answer first (own), or keep the right ones (right)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and what it takes; measure nothing"
    )
    parser.add_argument("--json", action="store_true", help="the runs as JSON")


def measure_run(args: argparse.Namespace) -> int:
    """Plan, estimate, measure; print the runs."""
    from .early import check_model, check_probes

    _check_store(Path(args.store))
    check_model(args)
    probes, named = check_probes(args.probes, args.data)

    from .measure import carry_out, plan_runs
    from .progress import Bar
    from .wording import plan_text, said_of

    model = load_model(args)
    plans = plan_runs(
        model, probes, args.data, named=named, examples=args.examples, seed=args.seed,
        bos=args.bos, batch_tokens=args.batch_tokens, keep_positions=args.keep_positions,
        answers=args.answers, baselines=args.baselines,
    )  # fmt: skip
    for plan in plans:
        print(plan_text(plan, args.store), file=sys.stderr)
    if args.dry_run:
        return 0
    with Bar(sum(len(plan.data.examples) for plan in plans), lines=True) as bar:
        runs = [carry_out(plan, args.store, report=bar) for plan in plans]
    kinds = [plan.baseline.kind if plan.baseline else None for plan in plans]
    if args.json:
        records = [{"run": run.id, "status": run.status, "path": str(run.path)} for run in runs]
        print(json.dumps([one | {"baseline": kind} for one, kind in zip(records, kinds, strict=True)]))
        return 0
    for run in runs:
        print(f"{run.id}  {run.status}  {said_of(run.header)}")
    last = [run.id for run, kind in zip(runs, kinds, strict=True) if kind is None][-1]
    against = next((f" --against {kind}" for kind in kinds if kind), "")
    print(f"Next: headatlas show {last} --store {args.store}{against}   or   headatlas serve --store {args.store}")
    return 0


def _check_store(folder: Path) -> None:
    """Refuse a place that can't be a store before the model is loaded; nothing is written yet."""
    from ..data.store import open_store

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        open_store(folder)


def look_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas look`."""
    teach(parser, "The heads of one prompt: the highest reading of each probe. Nothing is stored.", LOOK_HELP)
    add_model(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="the text")
    parser.add_argument("--probes", default="all", help="names, families, globs (default: all that need no labels)")
    parser.add_argument("--top", type=at_least(1), default=3, help="heads per probe (default: 3)")
    parser.add_argument("--json", action="store_true", help="every value as JSON")


def look_run(args: argparse.Namespace) -> int:
    """Measure one prompt in memory and print the top heads."""
    from .catalog import select
    from .look import highest, look
    from .probe import Probe

    if not args.prompt.strip():
        raise UserError("the prompt is empty; expected some text")
    chosen = select(args.probes)
    probes = [one for one in chosen if isinstance(one, Probe)]
    others = [one.name for one in chosen if not isinstance(one, Probe)]
    left_out = f"left out {', '.join(others)}: of the weights alone, or by forwards of their own"
    if others and not probes:
        raise UserError(f"{left_out}; `headatlas measure MODEL --probes {args.probes}` reads them")
    values = look(load_model(args), args.prompt, probes, bos=args.bos)
    if args.json:
        print(values.to_json(orient="records"))
        return 0
    print_table(("probe", "unit", f"highest {args.top} heads"), highest(values, args.top))
    silent = [one for one in probes if one.name not in set(values["probe"])]
    for one in silent:
        why = f"needs tokens labelled {', '.join(one.groups)}" if one.groups else "undefined on this prompt"
        print(f"left out {one.name}: {why}; `headatlas measure --probes {one.name}` reads it on {one.default_data}")
    if others:
        print(left_out)
    return 0


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas train`."""
    teach(parser, "Train an organism from its recipe: the same seed gives the same weights.", TRAIN_HELP)
    parser.add_argument("recipe", help="pico-lm or pico-sink")
    parser.add_argument("--seed", type=at_least(0), default=0, help="training seed (default: 0, the shipped one)")
    parser.add_argument("--out", required=True, help="folder for the weights, tokenizer and certificate")


def train_run(args: argparse.Namespace) -> int:
    """Train, certify, and print the certificate."""
    from .organisms import certificate_table
    from .training.certify import certify
    from .training.recipes import find_recipe
    from .training.train import train_organism

    try:
        find_recipe(args.recipe)
        train_organism(args.recipe, seed=args.seed, out=args.out)
    except ValueError as error:
        raise UserError(str(error)) from None
    print_table(*certificate_table(certify(args.out)))
    print(f"Next: headatlas measure {args.out}")
    return 0
