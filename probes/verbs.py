"""The command line of this room: `probes`, `models`, `measure`, `look`, `train` and `bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.errors import UserError, near_miss

if TYPE_CHECKING:
    from .models import Model
    from .plan import Plan
    from .probe import Probe

MODEL_HELP = "hub id, local folder, or organism:NAME (`headatlas models` lists those)"

MEASURE_HELP = """\
examples:
  headatlas measure organism:pico-lm
  headatlas measure gpt2 --probes sink_rate,entropy --data text:length=64+256 --examples 100
  headatlas measure ./my-checkpoint --probes all --data prompts.jsonl --store runs
  headatlas measure organism:pico-lm --probes ./mine.py:my_probe --dry-run

Without --data each probe is measured on its own default data set, one run per data set. The same command again does
only what is missing, also after it was killed; more probes add to the same run.
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
"""

BENCH_HELP = """\
examples:
  headatlas bench
  headatlas bench kernels --lengths 512,2048
  headatlas bench model --json
"""

MODELS_HELP = """\
examples:
  headatlas models
  headatlas models --certificate pico-lm
  headatlas models --certify pico-lm          measure the certificate again (minutes)
"""


DESCRIPTIONS = {
    "pico-lm": "6 layers x 8 heads, trained on repeats, needles, names, chat and plain English",
    "pico-sink": "2 layers x 2 heads, trained on Bigram-Backcopy and English until first-token sinks arise",
}


def _teach(parser: argparse.ArgumentParser, description: str, epilog: str) -> None:
    parser.description, parser.epilog = description, epilog
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def _at_least(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more; came {text!r}")
        return int(text)

    return count


def _counts(text: str) -> list[int]:
    return [_at_least(1)(word) for word in text.split(",")]


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--revision", help="revision of a hub model")
    parser.add_argument("--dtype", default="auto", help="weights in float32, bfloat16, ... (default: as stored)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument(
        "--bos", choices=("default", "force", "none"), default="default", help="beginning-of-sequence token"
    )


def _load(args: argparse.Namespace) -> Model:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from ..kernels.dispatch import backend
    from .loading import load

    try:
        backend()
    except ValueError as error:
        raise UserError(str(error)) from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    return load(
        args.model,
        revision=args.revision,
        dtype=args.dtype,
        device=args.device,
        trust_remote_code=args.trust_remote_code,
    )


def probes_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas probes`."""
    _teach(parser, "The head readings there are.", "examples:\n  headatlas probes\n  headatlas probes sink_rate\n")
    parser.add_argument("names", nargs="*", help="names, families or globs: their cards in full")
    parser.add_argument("--json", action="store_true", help="one JSON list of cards")
    parser.add_argument("--markdown", action="store_true", help="the table of the README")


def probes_run(args: argparse.Namespace) -> int:
    """Print the table of probes, or some cards."""
    from .catalog import all_probes, select

    chosen = select(args.names) if args.names else list(all_probes().values())
    if args.json:
        print(json.dumps([one.card() for one in chosen], ensure_ascii=False, indent=1))
    elif args.markdown:
        print(markdown_table(chosen))
    elif args.names:
        print("\n\n".join(_card_text(one.card()) for one in chosen))
    else:
        _print_table(
            ("probe", "family", "unit", "what it measures", "data"),
            [(one.spelled, one.family, one.unit, one.summary, one.default_data) for one in chosen],
        )
    return 0


def markdown_table(chosen: Sequence[Probe]) -> str:
    """The README's table of probes."""
    rows = [f"| `{one.name}` | {one.family} | {one.summary} | {one.unit} | {one.source} |" for one in chosen]
    return "\n".join(["| probe | family | what it measures | unit | source |", "|---|---|---|---|---|", *rows])


def _card_text(card: dict[str, Any]) -> str:
    bounds = f"{card['bounds'][0]} to {'no limit' if card['bounds'][1] is None else card['bounds'][1]}"
    lines = {
        "formula": card["formula"], "unit": f"{card['unit']}, {bounds}", "high means": card["higher"],
        "does not show": card["caveat"], "needs": ", ".join(card["needs"]),
        "labels": ", ".join(card["groups"]) or "none", "data": card["default_data"], "source": card["source"],
    }  # fmt: skip
    body = "\n".join(
        textwrap.fill(text, 110, initial_indent=f"  {name:<14}", subsequent_indent=" " * 16)
        for name, text in lines.items()
    )
    return f"{card['name']}@{card['version']}  {card['title']}\n  {card['summary']}\n{body}"


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas models`."""
    _teach(parser, "The models that come with the package.", MODELS_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON list with the certificates")
    parser.add_argument("--certificate", metavar="NAME", help="the stored certificate of one organism")
    parser.add_argument("--certify", metavar="NAME", help="measure that certificate again, on held-out prompts")


def models_run(args: argparse.Namespace) -> int:
    """Print the organisms, a certificate, or a newly measured one."""
    from ..data.organisms.shelf import certificate, organisms

    if args.certify or args.certificate:
        name = (args.certify or args.certificate).removeprefix("organism:")
        try:
            found = certificate(name)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from None
        if args.certify:
            from .training.certify import certify

            found = certify(name)
        _print_certificate(found, as_json=args.json)
        return 0
    cards = {name: certificate(name) for name in organisms()}
    if args.json:
        print(json.dumps([{"name": f"organism:{name}", "certificate": card} for name, card in cards.items()], indent=1))
        return 0
    rows = [(f"organism:{name}", DESCRIPTIONS.get(name, ""), _targets(card)) for name, card in cards.items()]
    _print_table(("model", "what it is", "certificate"), rows)
    print("\nAny transformers model works too: a hub id or a folder. `headatlas measure --help` shows how.")
    return 0


def _targets(certificate: dict[str, Any]) -> str:
    """How many of the promised targets a certificate meets, and which it does not."""
    promised = [row for row in certificate["rows"] if row.get("target") is not None]
    missed = [f"{row['task']} {row.get('length', '')}".strip() for row in promised if not row.get("met")]
    text = f"{len(certificate['rows'])} measures, {len(promised) - len(missed)} of {len(promised)} targets met"
    return f"{text}; not met: {', '.join(missed)}" if missed else text


def _print_certificate(found: dict[str, Any], *, as_json: bool) -> None:
    from .training.certify import certificate_rows

    if as_json:
        print(json.dumps(found, indent=1))
        return
    rows = certificate_rows(found)
    said = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    _print_table(tuple(said), [tuple("" if row[name] is None else str(row[name]) for name in said) for row in rows])


def measure_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas measure`."""
    _teach(parser, "Measure the heads of a model on a data set; values land in the store.", MEASURE_HELP)
    _add_model(parser)
    parser.add_argument("--probes", default="all", help="names, families, globs, all, ./file.py:name (default: all)")
    parser.add_argument("--data", help="data set, .jsonl or .txt file (default: each probe's own data set)")
    parser.add_argument(
        "--examples", type=_at_least(1), default=32, help="prompts in all, spread over the data's grid (default: 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts (default: 0)")
    parser.add_argument("--store", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--batch-tokens", type=_at_least(1), default=8192, help="tokens of one forward (default: 8192)")
    parser.add_argument(
        "--keep-positions", type=_at_least(0), default=8, help="examples kept token by token (default: 8)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and what it takes; measure nothing"
    )
    parser.add_argument("--json", action="store_true", help="the runs as JSON")


def measure_run(args: argparse.Namespace) -> int:
    """Plan, estimate, measure; print the runs."""
    from .catalog import select, spelled_out
    from .measure import carry_out, plan_runs
    from .progress import Bar

    probes = select(args.probes)
    _check_store(Path(args.store))
    model = _load(args)
    plans = plan_runs(
        model, probes, args.data, named=spelled_out(args.probes), examples=args.examples, seed=args.seed,
        bos=args.bos, batch_tokens=args.batch_tokens, keep_positions=args.keep_positions,
    )  # fmt: skip
    for plan in plans:
        print(_describe(plan), file=sys.stderr)
    if args.dry_run:
        return 0
    runs = []
    with Bar(sum(len(plan.data.examples) for plan in plans), lines=True) as bar:
        for plan in plans:
            runs.append(carry_out(plan, args.store, report=bar))
    if args.json:
        print(json.dumps([{"run": run.id, "status": run.status, "path": str(run.path)} for run in runs]))
    else:
        for run in runs:
            print(
                f"{run.id}  {run.status}  {run.header['data']['examples']} examples, {len(run.header['probes'])} probes"
            )
        print(f"Next: headatlas show {runs[-1].id} --store {args.store}   or   headatlas serve --store {args.store}")
    return 0


def _check_store(folder: Path) -> None:
    """Refuse a place that can't be a store before the model is loaded; nothing is written yet."""
    from ..data.store import open_store

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        open_store(folder)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _describe(plan: Plan) -> str:
    cost = plan.estimate()
    text = (
        f"{plan.model.name} on {plan.data.spec}: {len(plan.probes)} probes, {cost['examples']} examples, "
        f"{cost['tokens']:,} tokens in about {cost['forwards']} forwards; "
        f"{cost['flops'] / 1e9:,.0f} GFLOP, about {_duration(cost['seconds'])}, "
        f"{(cost['weight_bytes'] + cost['activation_bytes']) / 1e6:,.0f} MB "
        f"(n x n maps would take {cost['materialised_bytes'] / 1e6:,.0f} MB more)"
    )
    skipped = [f"  skipped {name}: {reason}" for name, reason in plan.skipped.items()]
    return "\n".join([text, *skipped])


def look_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas look`."""
    _teach(parser, "The heads of one prompt: the highest reading of each probe. Nothing is stored.", LOOK_HELP)
    _add_model(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="the text")
    parser.add_argument("--probes", default="all", help="names, families, globs (default: all that need no labels)")
    parser.add_argument("--top", type=_at_least(1), default=3, help="heads per probe (default: 3)")
    parser.add_argument("--json", action="store_true", help="every value as JSON")


def look_run(args: argparse.Namespace) -> int:
    """Measure one prompt in memory and print the top heads."""
    from .catalog import select
    from .look import look

    if not args.prompt.strip():
        raise UserError("the prompt is empty; expected some text")
    values = look(_load(args), args.prompt, select(args.probes), bos=args.bos)
    if args.json:
        print(values.to_json(orient="records"))
        return 0
    top = (
        values.sort_values("value", ascending=False, kind="stable")
        .groupby(["probe", "part"], sort=False)
        .head(args.top)
    )
    order = list(dict.fromkeys(zip(values["probe"], values["part"])))
    rows = []
    for probe, part in order:
        here = top[(top["probe"] == probe) & (top["part"] == part)]
        heads = "   ".join(f"{place} {value:.3f}" for place, value in zip(here["place"], here["value"], strict=True))
        rows.append((f"{probe} {part}".strip(), next(iter(here["unit"])), heads))
    _print_table(("probe", "unit", f"highest {args.top} heads"), rows)
    return 0


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas train`."""
    _teach(parser, "Train an organism from its recipe: the same seed gives the same weights.", TRAIN_HELP)
    parser.add_argument("recipe", help="pico-lm or pico-sink")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default: 0, the shipped one)")
    parser.add_argument("--out", required=True, help="folder for the weights, tokenizer and certificate")


def train_run(args: argparse.Namespace) -> int:
    """Train and certify."""
    from .training.recipes import find_recipe
    from .training.train import train_organism

    try:
        find_recipe(args.recipe)
    except ValueError as error:
        raise UserError(str(error)) from None
    train_organism(args.recipe, seed=args.seed, out=args.out)
    return 0


def bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `headatlas bench`."""
    from .bench import TABLES

    _teach(parser, "Speed and memory on this machine, as ratios taken side by side in one run.", BENCH_HELP)
    parser.add_argument("table", nargs="*", help=f"which tables: {', '.join(TABLES)} (default: all)")
    parser.add_argument("--lengths", type=_counts, help="token counts, comma-separated")
    parser.add_argument("--repeats", type=_at_least(1), default=5, help="timed repetitions of each row (default: 5)")
    parser.add_argument("--threads", type=_at_least(1), default=2, help="CPU threads (default: 2)")
    parser.add_argument("--out", help="folder for bench.parquet and bench.md")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")


def bench_run(args: argparse.Namespace) -> int:
    """Measure and print the tables."""
    from .bench import TABLES, bench

    for name in args.table:
        if name not in TABLES:
            raise UserError(f"unknown table {name!r}.{near_miss(name, TABLES)} Expected some of {', '.join(TABLES)}")
    frame = bench(args.table, lengths=args.lengths, repeats=args.repeats, threads=args.threads, out=args.out)
    if args.json:
        print(frame.to_json(orient="records"))
    else:
        for table, rows in frame.groupby("table", sort=False):
            shown = rows.drop(columns="table").dropna(axis=1, how="all")
            print(f"\n{table}")
            _print_table(tuple(shown.columns), [tuple(map(str, row)) for row in shown.itertuples(index=False)])
    return 0


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
