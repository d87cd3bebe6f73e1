"""`headatlas bench`: what the statistics cost on this machine, in time and memory, beside what else there is.

Times are taken side by side in one process and reported as ratios with their spread; each peak of memory comes from a
process of its own. Nothing is reported when the numbers themselves are wrong, and nothing is run that would not fit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
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
from .edits.edit import Edit
from .forward import edited, observe
from .loading import load
from .models import Model

LAYERS, HEADS, VOCABULARY = 12, 12, 50257
WIDTHS = (16, 64)
"""Head sizes of the random model."""
MODEL_LENGTHS = (512, 2048, 4096)
USUAL_PROBES = ("entropy", "first_token_mass", "sink_rate", "effective_keys", "group_mass")
EDITS = {
    "a head of each layer zeroed": Edit("zero", [f"L{layer}H0" for layer in range(LAYERS)]),
    "a head of each layer blocked from the first token": Edit(
        "block", [f"L{layer}H0" for layer in range(LAYERS)], from_group="first"
    ),
    "every head blocked from the first token": Edit("block", from_group="first"),
}
"""Constant edits whose cost is timed."""
OF_MODEL = ("model", "edits")
TABLES = ("kernels", *OF_MODEL)


def bench(
    tables: Sequence[str] = (),
    *,
    lengths: Sequence[int] | None = None,
    widths: Sequence[int] = WIDTHS,
    repeats: int = 5,
    threads: int = 2,
    device: str = "cpu",
    out: str | Path | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> pd.DataFrame:
    """The asked-for tables (default all) as one tidy frame; with `out`, also bench.parquet and bench.md there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, torch sees none; use --device cpu")
    torch.set_num_threads(threads)
    kernels.check(device)
    rows = []

    def measure(shape: dict[str, Any], providers: dict[str, Provider], once: Callable[..., Any], *place: Any) -> None:
        report(", ".join(f"{name} {value}" for name, value in shape.items()))
        alone = partial(_alone, once, threads, *place)
        rows.extend(shape | row for row in compare(providers, repeats, device=device, alone=alone))

    for length in (lengths or kernels.LENGTHS) if "kernels" in (tables or TABLES) else ():
        measure(kernels.shape_of(length), kernels.providers(length, device), kernels.once, length, device)
    for table in [one for one in OF_MODEL if one in (tables or TABLES)]:
        for width in widths:
            for length in lengths or MODEL_LENGTHS:
                shape = {"table": table, "length": length, "heads": LAYERS * HEADS, "d_head": width}
                providers = model_providers(table, width, length, device)
                measure(shape, providers, model_once, table, width, length, device)
    versions = {name: version(name) for name in ("torch", "transformers")}
    frame = pd.DataFrame(rows).assign(threads=threads, device=device_name(device), **versions)
    if out is not None:
        _write(frame, Path(out))
    return frame


def random_model(width: int, length: int, device: str = "cpu") -> Model:
    """A random GPT-2 of 12 layers and 12 heads of `width`, with the real vocabulary; bfloat16 on a GPU."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=HEADS * width, n_layer=LAYERS, n_head=HEADS, n_positions=length, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    network = GPT2LMHeadModel(config).eval()
    torch.nn.Module.to(network, torch.device(device), torch.bfloat16 if device == "cuda" else torch.float32)
    return load((network, None), check=False)


def model_providers(table: str, width: int, length: int, device: str = "cpu") -> dict[str, Provider]:
    """The forwards compared at one size; logits of the last token alone, as headatlas runs it."""
    model = random_model(width, length, device)
    made = batch(model, torch.randint(5, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0)))
    plain = {"forward": Provider(lambda: partial(_forward, model, made))}
    return plain | (_measuring if table == "model" else _editing)(model, made)


def _editing(model: Model, made: TokenBatch) -> dict[str, Provider]:
    """Forwards with a constant edit."""
    return {
        f"forward with {name}": Provider(lambda one=one: partial(edited, model, made, [one], every_token=False))
        for name, one in EDITS.items()
    }


def _measuring(model: Model, made: TokenBatch) -> dict[str, Provider]:
    """Forwards that measure, and what others hold for it."""
    probes = all_probes()
    needs = {
        "usual probes": frozenset().union(*(probes[name].needs for name in USUAL_PROBES)),
        "every probe": frozenset().union(*(one.needs for one in probes.values())),
        "every statistic": kernels.EVERYTHING,
    }
    maps = 4.0 * LAYERS * HEADS * made.input_ids.shape[1] ** 2  # type: ignore[union-attr]
    return {
        **{
            f"forward with {name}": Provider(lambda asked=asked: partial(_observed, model, made, asked))
            for name, asked in needs.items()
        },
        "output_attentions=True": Provider(lambda: partial(_maps, model, made), maps),
        "TransformerLens run_with_cache (patterns)": Provider(lambda: _lens(model, made), 2 * maps),
    }


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


def model_once(table: str, width: int, length: int, device: str, provider: str) -> tuple[float, float]:
    """(peak MB of one forward above the loaded model, its seconds); call it in a fresh process."""
    model_providers(table, width, 64, device)[provider].make()()  # what is loaded and made once
    return peak_and_seconds(model_providers(table, width, length, device)[provider].make(), device)


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
