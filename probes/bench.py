"""`headatlas bench`: what the statistics cost on this machine, in time and memory, beside what else there is.

Times are taken side by side in one process and reported as ratios with their spread; each peak of memory comes from a
process of its own. Nothing is reported when the numbers themselves are wrong, and nothing is run that would not fit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from ..kernels import bench as kernels
from ..kernels.timing import Provider, compare, device_name, peak_and_seconds
from .batching import batch
from .catalog import all_probes
from .early import TABLES
from .edits.edit import Edit
from .forward import edited, observe
from .models import Model
from .probe import Probe
from .random_models import RANDOM_MODELS
from .rows import ChunkTables

USUAL_PROBES = ("entropy", "first_token_mass", "sink_rate", "effective_keys", "group_mass")
OF_MODEL = ("model", "edits")
REPEATS = {"cpu": 5, "cuda": 20}


def bench(
    tables: Sequence[str] = (),
    *,
    lengths: Sequence[int] | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    widths: Sequence[int] | None = None,
    model: str = "gpt2",
    repeats: int | None = None,
    threads: int = 2,
    device: str = "cpu",
    out: str | Path | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> pd.DataFrame:
    """The asked-for tables (default all) as one tidy frame; with `out`, also bench.parquet and bench.md there.

    `heads` and `kv_heads` are those of the calls of table `kernels`; `model` names one of `RANDOM_MODELS`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, torch sees none; use --device cpu")
    torch.set_num_threads(threads)
    kernels.check(kernels.SIZES[device], device)
    rows: list[dict[str, Any]] = []
    times = repeats or REPEATS[device]

    def measure(shape: dict[str, Any], providers: dict[str, Provider], once: Callable[..., Any], *place: Any) -> None:
        report(", ".join(f"{name} {value}" for name, value in shape.items()))
        alone = partial(_alone, once, threads, *place) if device == "cpu" else partial(_beside, providers, device)
        against = kernels.AGAINST[device]
        rows.extend(shape | row for row in compare(providers, times, device=device, alone=alone, against=against))
        if out is not None:  # what is measured stays, whatever comes after it
            _write(_frame(rows, threads, device), Path(out))

    for sizes in _sizes(device, lengths, heads, kv_heads, widths) if "kernels" in (tables or TABLES) else ():
        for length in sizes.lengths:
            measure(sizes.shape(length), kernels.providers(sizes, length, device), kernels.once, sizes, length, device)
    kind = RANDOM_MODELS[model]
    for table in [one for one in OF_MODEL if one in (tables or TABLES)]:
        for width in widths or kind.widths:
            for length in lengths or kind.lengths:
                shape = {"table": table, "length": length, "heads": kind.layers * kind.heads, "d_head": width}
                place = (table, model, width, length, device)
                measure(shape, model_providers(*place), model_once, *place)
    return _frame(rows, threads, device)


def _sizes(
    device: str, lengths: Sequence[int] | None, heads: int | None, kv_heads: int | None, widths: Sequence[int] | None
) -> list[kernels.Sizes]:
    """The calls of table `kernels`: the device's own sizes, or those asked for."""
    usual = kernels.SIZES[device]
    heads = heads or usual.heads
    shared = kv_heads or heads
    if heads % shared:
        raise UserError(f"expected a number of kv heads that divides {heads} heads, got {shared}")
    return [
        replace(usual, lengths=tuple(lengths or usual.lengths), heads=heads, kv_heads=shared, width=width)
        for width in (widths or (usual.width,))
    ]


def _frame(rows: list[dict[str, Any]], threads: int, device: str) -> pd.DataFrame:
    versions = {name: version(name) for name in ("torch", "transformers")}
    return pd.DataFrame(rows).assign(threads=threads, device=device_name(device), **versions)


def model_providers(table: str, name: str, width: int, length: int, device: str = "cpu") -> dict[str, Provider]:
    """The forwards compared at one size; logits of the last token alone, as headatlas runs it."""
    kind = RANDOM_MODELS[name]
    model = kind.make(width, length, device)
    ids = torch.randint(5, kind.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    plain = {"forward": Provider(lambda: partial(_forward, model, batch(model, ids)))}
    return plain | (_measuring if table == "model" else _editing)(model, batch(model, ids))


def _editing(model: Model, made: TokenBatch) -> dict[str, Provider]:
    """Forwards with a constant edit."""
    one_each = [f"L{layer}H0" for layer in range(model.config.num_hidden_layers)]
    edits = {
        "a head of each layer zeroed": Edit("zero", one_each),
        "a head of each layer blocked from the first token": Edit("block", one_each, from_group="first"),
        "every head blocked from the first token": Edit("block", from_group="first"),
    }
    return {
        f"forward with {name}": Provider(lambda one=one: partial(edited, model, made, [one], every_token=False))
        for name, one in edits.items()
    }


def _measuring(model: Model, made: TokenBatch) -> dict[str, Provider]:
    """Forwards that measure, and what others hold for it."""
    probes = all_probes()
    asked = {"usual probes": [probes[name] for name in USUAL_PROBES], "every probe": list(probes.values())}
    unlabelled = {name: [one for one in some if not one.groups] for name, some in asked.items()}
    needs = {name: frozenset().union(*(one.needs for one in some)) for name, some in asked.items()}
    needs["every statistic"] = kernels.EVERYTHING
    heads = model.config.num_hidden_layers * model.config.num_attention_heads
    maps = 4.0 * heads * made.input_ids.shape[1] ** 2  # type: ignore[union-attr]
    found = {
        f"forward with {name}": Provider(lambda one=one: partial(_observed, model, made, one))
        for name, one in needs.items()
    }
    found |= {
        f"forward with {name} and what is read off": Provider(lambda some=some: partial(_read, model, made, some))
        for name, some in unlabelled.items()
    }
    found["output_attentions=True"] = Provider(lambda: partial(_maps, model, made), maps)
    if find_spec("transformer_lens") is not None:
        found["TransformerLens run_with_cache (patterns)"] = Provider(lambda: _lens(model, made), 2 * maps)
    return found


def _read(model: Model, made: TokenBatch, probes: list[Probe]) -> None:
    """As `measure` does it, up to the store: statistics, and the reading of each layer by all that need no labels."""
    tables = ChunkTables(tuple(probes), with_maps=False).open(0, [made.input_ids.shape[1]], 0)  # type: ignore[union-attr]
    observe(model, made, tables.needs, on_layer=tables.add)


def _observed(model: Model, made: TokenBatch, needs: frozenset[str]) -> None:
    observe(model, made, needs, on_layer=lambda stats: None)


@torch.no_grad()
def _forward(model: Model, made: TokenBatch, **options: Any) -> object:
    ids = made.input_ids.to(model.device)  # type: ignore[union-attr]
    return model.network(input_ids=ids, use_cache=False, logits_to_keep=1, **options)


def _maps(model: Model, made: TokenBatch) -> object:
    before = model.network.config._attn_implementation or "sdpa"
    model.network.set_attn_implementation("eager")
    try:
        return _forward(model, made, output_attentions=True)
    finally:
        model.network.set_attn_implementation(before)


def _lens(model: Model, made: TokenBatch) -> Callable[[], object]:
    """TransformerLens on the same weights, keeping the attention patterns alone; its logits are of every token."""
    from transformer_lens.model_bridge import TransformerBridge

    from ..data.organisms.vocabulary import build_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        model.network.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, device=str(model.device))
    ids = made.input_ids.to(model.device)  # type: ignore[union-attr]

    @torch.no_grad()
    def call() -> object:
        return bridge.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))

    return call


def model_once(table: str, name: str, width: int, length: int, device: str, provider: str) -> tuple[float, float]:
    """(peak MB of one forward above the loaded model, its seconds); call it in a fresh process."""
    model_providers(table, name, width, 64, device)[provider].make()()  # what is loaded and made once
    return peak_and_seconds(model_providers(table, name, width, length, device)[provider].make(), device)


def _beside(providers: dict[str, Provider], device: str, name: str) -> tuple[float, float]:
    """(MB, seconds) of a provider in this process, for a device whose allocator counts each call by itself."""
    megabytes, seconds = peak_and_seconds(providers[name].make(), device)
    return round(megabytes, 1), seconds


def _alone(function: Callable[..., tuple[float, float]], threads: int, *arguments: Any) -> tuple[float, float]:
    """(MB, seconds) of a function in a fresh process."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        megabytes, seconds = pool.submit(function, *arguments).result()
        return round(megabytes, 1), seconds


def _write(frame: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "bench.parquet")
    (folder / "bench.md").write_text(markdown(frame))


def markdown(frame: pd.DataFrame) -> str:
    """The frame as a table; what was not measured is an empty cell."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join("" if value != value else str(value) for value in row) + " |")
    return "\n".join(lines) + "\n"
