"""What a verb refuses before torch and the model are loaded, which takes seconds: names, files, labels, heads.

Only what is certain is refused here, from the words of the command, the cards of data sets, files and the model's
config.json where it lies on this machine; everything else is left to whoever needs it, with the same words.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.catalog import declared_groups, parse_data
from ..data.errors import UserError, first_line, near_miss
from ..data.groups import check_names
from ..data.heads import head_name
from ..data.organisms.shelf import organism_path, organisms

if TYPE_CHECKING:
    from .edits.edit import Edit
    from .measurement import Measurement

LAYERS, HEADS = ("num_hidden_layers", "n_layer", "num_layers"), ("num_attention_heads", "n_head", "num_heads")
"""What the numbers of layers and of heads in each are called in a config.json."""
TABLES = ("kernels", "model", "edits")
"""What `headatlas bench` measures."""
DTYPES = ("auto", "float32", "float16", "bfloat16", "float64", "float", "half", "double")

ENTRY_POINTS = "headatlas.probes"
"""Where installed packages name their probes."""
SCORE_NAMES = (
    *("exact_match", "answer_loss", "logit_difference", "choice", "answer_entropy"),
    *("repeat_match", "repeat_loss", "token_loss"),
)
"""Every score of `scores.py`, where each is said."""


def check_model(args: argparse.Namespace) -> None:
    """Refuse an organism or folder that does not exist, and a dtype that torch does not have."""
    _config_of(args)
    if args.dtype not in DTYPES and not args.dtype.startswith("float8"):
        raise UserError(f"unknown dtype {args.dtype!r}.{near_miss(args.dtype, DTYPES)} Expected {', '.join(DTYPES)}")


def check_heads(args: argparse.Namespace, places: Iterable[tuple[int, int]], what: str) -> None:
    """Refuse heads that the model's config, where it is on this machine, says it does not have."""
    layers, heads = _shape(args)
    for layer, head in places:
        if layers is not None and layer >= layers:
            of = f"there are {layers} layers"
        elif heads is not None and head >= heads:
            of = f"layer {layer} has {heads} heads"
        else:
            continue
        raise UserError(f"{what}: there is no head {head_name(layer, head)}; {of}, counted from 0")


def check_edit(args: argparse.Namespace, edit: Edit) -> None:
    """Refuse an edit of heads that the model lacks, or of tokens that the data lack."""
    places = [(layer, head) for layer, heads in (edit.places or {}).items() for head in heads]
    check_heads(args, places, f"edit {edit.kind}")
    check_tokens(args.data, (edit.from_group, edit.to_group), f"edit {edit.kind}")


def check_tokens(data: str, names: Iterable[str | None], what: str) -> None:
    """Refuse data that there is not, and names of tokens that it can't have."""
    groups = declared_groups(data)
    for name in names:
        if name is not None and groups is not None:
            check_names(name, groups, what, data)


def check_score_name(name: str | None) -> None:
    """Refuse a score that there is not."""
    if name is not None and name not in SCORE_NAMES:
        raise UserError(
            f"unknown score {name!r}.{near_miss(name, SCORE_NAMES)} Expected one of {', '.join(SCORE_NAMES)}"
        )


def check_probes(patterns: str, data: str | None) -> tuple[list[Measurement], frozenset[str]]:
    """(the probes that are named, those by their own name); refused where the data can't have the latter's labels."""
    groups = None if data is None or data == "weights" else declared_groups(data)
    names = _declared_names()
    for word in (one.strip() for one in patterns.split(",")):
        if names and re.fullmatch(r"[\w-]+", word) and word not in {*names, "all"}:
            raise UserError(f"unknown probe {word!r}.{near_miss(word, names)} `headatlas probes` lists them")

    from .catalog import select, spelled_out

    chosen, named = select(patterns), spelled_out(patterns)
    lack = {one.name: one.lack(parse_data(data)[0], groups) for one in chosen if data and groups is not None}
    if refused := [f"{name}: {why}" for name, why in lack.items() if why and name in named]:
        raise UserError("; ".join(refused))
    return chosen, named


def _declared_names() -> list[str]:
    """Names and families of the library, read from its files; none where installed packages may bring others."""
    if entry_points(group=ENTRY_POINTS):
        return []
    found: list[str] = []
    for path in sorted((Path(__file__).parent / "library").glob("*.py")):
        functions = (
            node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        )
        found += [path.stem, *(one.name for one in functions if one.decorator_list)]
    return found


def not_found(name: str, error: Exception) -> UserError:
    """The refusal of a model that is not there."""
    known = ", ".join(f"organism:{one}" for one in organisms())
    return UserError(
        f"model {name!r}: expected a hub id, a folder with config.json, or one of {known}; {first_line(error)}"
    )


def _config_of(args: argparse.Namespace) -> Path | None:
    """The model's config.json where it is on this machine; refused where no network can bring it."""
    name = args.model
    folder = organism_path(name) if name.startswith("organism:") else Path(name)
    if folder.is_dir():
        return folder / "config.json"
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        raise not_found(name, FileNotFoundError("there is no such folder"))
    from huggingface_hub import constants, try_to_load_from_cache

    kept = try_to_load_from_cache(name, "config.json", revision=args.revision)
    if not isinstance(kept, str) and constants.HF_HUB_OFFLINE:
        raise not_found(name, FileNotFoundError("HF_HUB_OFFLINE is set and it was not downloaded before"))
    return Path(kept) if isinstance(kept, str) else None


def _shape(args: argparse.Namespace) -> tuple[int | None, int | None]:
    """(layers, heads in each) by the model's config; None where it does not say."""
    try:
        path = _config_of(args)
        config: dict[str, Any] = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return None, None
    layers, heads = (next((config[name] for name in names if name in config), None) for names in (LAYERS, HEADS))
    return (layers if isinstance(layers, int) else None), (heads if isinstance(heads, int) else None)
