"""Certificates: what a shipped organism was measured to do, stored beside its weights, and the table people read.

    certify("pico-lm")             measures the shipped weights and writes certificate.json into their folder
    shelve("pico-lm", run_folders) takes the first run as the organism, the others' tables into its certificate

A certificate names the seed, the recipe's steps, versions, CPU seconds and the command, and no date, so that measuring
the same weights again writes the same file.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from ...data.organisms.rows import Encoder
from ...data.organisms.shelf import CERTIFICATE, SHELF, organism_path
from .lm_measures import measure_lm
from .sink_measures import sink_rows

SCHEMA = 1
MEASURES = {"pico-lm": measure_lm, "pico-sink": sink_rows}
NOTES = {
    "pico-lm": "held-out prompts: their templates do not occur in training, their names only as random tokens",
    "pico-sink": "fresh Bigram-Backcopy rows; English from held-out templates",
}
WEIGHT_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
COLUMNS = (
    "task",
    "split",
    "length",
    "depth",
    "head",
    "exact",
    "preferred",
    "value",
    "low",
    "high",
    "n",
    "chance",
    "target",
    "met",
    "note",
)


def certify(name_or_folder: str | Path, *, scale: float = 1.0, seed: int = 10_000, write: bool = True) -> dict:
    """Measure an organism (by name, or a training run's folder) and store the certificate in its folder.

    `scale` multiplies the numbers of prompts; `seed` draws them. Tables of other seeds already in the certificate stay.
    """
    folder = _folder(name_or_folder)
    torch.set_num_threads(1)
    training = json.loads((folder / "training.json").read_text()) if (folder / "training.json").exists() else {}
    old = json.loads((folder / CERTIFICATE).read_text()) if (folder / CERTIFICATE).exists() else {}
    name = training.get("recipe") or old.get("recipe") or old.get("organism") or folder.name
    organism = folder.name if folder.parent == SHELF else name
    if name not in MEASURES:
        raise ValueError(
            f"no measures are known for {name!r} in {folder.name}; certificates exist for {sorted(MEASURES)}"
        )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    result = {
        "schema": SCHEMA,
        "organism": organism,
        "recipe": name,
        "training": _summary(training) or old.get("training"),
        "command": f"headatlas models --certify {organism}",
        "prompt_seed": seed,
        "prompts": NOTES[name],
        "versions": {package: version(package) for package in ("torch", "transformers", "tokenizers", "numpy")},
        "python": platform.python_version(),
        "rows": MEASURES[name](model, Encoder(), scale=scale, seed=seed),
    }
    result["unmet"] = unmet(result["rows"])
    result |= {key: old[key] for key in ("other_seeds", "why") if key in old}
    if write:
        (folder / CERTIFICATE).write_text(json.dumps(result, indent=1) + "\n")
    return result


def shelve(name: str, runs: Sequence[Path | str], *, why: Sequence[str] = ()) -> Path:
    """Put the first run's model on the shelf; all runs must have been certified. `why` explains what was not met."""
    first, *others = [Path(run) for run in runs]
    shelf = SHELF / name
    shelf.mkdir(exist_ok=True)
    for file in (*WEIGHT_FILES, "chat_template.jinja"):
        if (first / file).exists():
            shutil.copyfile(first / file, shelf / file)
    result = _certificate(first)
    result["other_seeds"] = {str(_certificate(run)["training"]["seed"]): _kept(_certificate(run)) for run in others}
    result["why"] = list(why)
    (shelf / CERTIFICATE).write_text(json.dumps(result, indent=1) + "\n")
    return shelf


def certificate_rows(certificate: dict, *, depths: bool = False) -> list[dict]:
    """The table of a certificate, all seeds: a dict a row under `COLUMNS`; needles of single depths only if asked."""
    tables = [(certificate["training"]["seed"], certificate["rows"])]
    tables += [(int(seed), table["rows"]) for seed, table in certificate.get("other_seeds", {}).items()]
    return [
        {"seed": seed} | {column: row.get(column) for column in COLUMNS}
        for seed, rows in tables
        for row in rows
        if depths or row.get("depth") in (None, "all")
    ]


def unmet(rows: Iterable[dict]) -> list[str]:
    """The promised targets that the measurement missed, in words."""
    return [
        f"{row['task']} {row.get('length', row.get('split', ''))}: {row.get('exact', row.get('value'))},"
        f" target {row['target']}"
        for row in rows
        if row.get("met") is False
    ]


def _folder(name_or_folder: str | Path) -> Path:
    folder = Path(name_or_folder)
    return folder if (folder / "config.json").exists() else organism_path(str(name_or_folder))


def _certificate(run: Path) -> dict:
    path = run / CERTIFICATE
    if not path.exists():
        raise FileNotFoundError(f"the run {run.name!r} has no certificate yet; call certify() on it first")
    return json.loads(path.read_text())


def _kept(certificate: dict) -> dict:
    return {key: certificate[key] for key in ("training", "unmet", "rows")}


def _summary(training: dict) -> dict | None:
    """Seed, steps, tokens and CPU seconds of a run from its training.json."""
    if not training:
        return None
    return {
        key: training.get(key, 1) for key in ("seed", "seeds", "steps", "attempts", "tokens", "cpu_seconds", "command")
    }
