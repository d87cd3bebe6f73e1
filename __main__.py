"""The command line: a table of verbs, each imported when it is called, so that `headatlas --help` needs no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from .data.errors import UserError, near_miss


@dataclass(frozen=True)
class Verb:
    """One verb: the room and name of its two functions (`NAME_arguments`, `NAME_run`) and a line of help."""

    room: str
    help: str


VERBS = {
    "probes": Verb("probes", "the head readings there are: formula, unit, source, what each needs"),
    "data": Verb("data", "the data sets there are, with their parameters"),
    "models": Verb("probes", "the models that come with the package, and their certificates"),
    "measure": Verb("probes", "measure the heads of a model on a data set, into the store"),
    "show": Verb("data", "a run in the terminal: the heads with the highest readings"),
    "compare": Verb("data", "whether two readings put the heads in the same order"),
    "rhythm": Verb("data", "preplan tokens and anchors: how local and global heads go together over a text"),
    "look": Verb("probes", "the heads of one prompt in seconds; nothing is stored"),
    "budget": Verb("probes", "which reading finds the heads that matter: scores against the number of heads edited"),
    "edit": Verb("probes", "edit some heads and see what becomes of the task, beside random heads"),
    "tune": Verb("probes", "ZeroTuning, ACT, PASTA or a greedy search: an edit chosen on prompts, reported on others"),
    "gates": Verb("probes", "which KV heads need a full cache: DuoAttention's gates, trained on this model"),
    "policy": Verb("data", "which KV heads keep their whole cache, by a stored reading: written as JSON or TSV"),
    "learn": Verb("probes", "what a linear probe can read off each head and layer, with a control task"),
    "taxonomy": Verb("data", "the heads in groups by their readings, and how far the groups repeat"),
    "reproduce": Verb("probes", "published numbers measured again, beside the paper's"),
    "train": Verb("probes", "train an organism from its recipe"),
    "serve": Verb("dashboards", "the dashboard over a store"),
    "bench": Verb("probes", "the speed and memory tables of this machine"),
}

EPILOG = """\
first steps:
  headatlas measure organism:pico-lm          every probe on the data it is made for
  headatlas show latest                       the top heads of each probe
  headatlas serve                             the same, to look at

headatlas VERB --help explains one verb. Exit codes: 0 done, 1 failed after starting, 2 refused before anything ran.
Tab completion for bash: eval "$(headatlas --completion)"
"""

COMPLETION = 'complete -W "{words}" headatlas'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. A mistake in what was asked is one line, never a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"headatlas: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("headatlas: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if words == ["--completion"]:
        print(COMPLETION.format(words=" ".join([*VERBS, "--help", "--version"])))
        return 0
    if not words or words[0].startswith("-"):
        _overview().parse_args(words or ["--help"])
        return 0
    name, *rest = words
    if name not in VERBS:
        raise UserError(f"unknown verb {name!r}.{near_miss(name, VERBS)} Expected one of {', '.join(VERBS)}")
    module = import_module(f".{VERBS[name].room}.verbs", __package__)
    parser = _Parser(prog=f"headatlas {name}")
    getattr(module, f"{name}_arguments")(parser)
    return int(getattr(module, f"{name}_run")(parser.parse_args(rest)))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. `{self.prog} --help` shows what it takes")


def _overview() -> argparse.ArgumentParser:
    from . import __version__

    verbs = "\n".join(f"  {name:<10}{verb.help}" for name, verb in VERBS.items())
    parser = _Parser(
        prog="headatlas",
        usage="headatlas VERB [options]",
        description=f"A workbench for attention heads.\n\nverbs:\n{verbs}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"headatlas {__version__}")
    parser.add_argument("--completion", action="store_true", help="print a line for the shell's tab completion")
    return parser


if __name__ == "__main__":
    sys.exit(main())
