"""`headatlas bench`: what the statistics cost on this machine, in time and memory, beside what else there is.

Times are taken side by side in one process and reported as ratios with their spread; each peak of memory comes from a
process of its own. Nothing is reported when the numbers themselves are wrong.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from ..kernels import bench as kernels
from ..kernels.timing import peak_megabytes, ratio, side_by_side
from .batching import batch
from .catalog import all_probes
from .forward import observe
from .loading import load
from .models import Model

LAYERS, HEADS, VOCABULARY = 12, 12, 50257
WIDTHS = (16, 64)
"""Head sizes of the random model."""
MODEL_LENGTHS = (512, 1024, 4096)
EAGER_LIMIT = 4e9
"""Bytes of attention maps above which `output_attentions` is not run."""
TABLES = ("kernels", "model")


def bench(
    tables: Sequence[str] = (),
    *,
    lengths: Sequence[int] | None = None,
    repeats: int = 5,
    threads: int = 2,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """The asked-for tables (default all) as one tidy frame; with `out`, also bench.parquet and bench.md there."""
    torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    if not tables or "kernels" in tables:
        kernels.check()
        for length in lengths or kernels.LENGTHS:
            for row in kernels.times(length, repeats):
                rows.append(row | {"peak_mb": _alone(kernels.memory, threads, length, row["provider"])})
    if not tables or "model" in tables:
        for width in WIDTHS:
            for length in lengths or MODEL_LENGTHS:
                rows += _model_rows(width, length, repeats, threads)
    frame = pd.DataFrame(rows).assign(threads=threads, device=_device(), torch=torch.__version__)
    if out is not None:
        _write(frame, Path(out))
    return frame


def _model_rows(width: int, length: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    seconds = side_by_side(model_providers(width, length), repeats)
    base = next(iter(seconds.values()))
    rows = []
    for name, values in seconds.items():
        middle, low, high = ratio(values, base)
        peak = _alone(model_memory, threads, width, length, name)
        rows.append(
            {
                "table": "model",
                "d_head": width,
                "length": length,
                "provider": name,
                "ms": round(1e3 * median(values), 1),
                "ratio": round(middle, 2),
                "ratio_low": round(low, 2),
                "ratio_high": round(high, 2),
                "peak_mb": peak,
            }
        )
    return rows


def random_model(width: int, length: int) -> Model:
    """A random GPT-2 of 12 layers and 12 heads of `width`, with the real vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=HEADS * width, n_layer=LAYERS, n_head=HEADS, n_positions=length, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return load((GPT2LMHeadModel(config).eval(), None), check=False)


def model_providers(width: int, length: int) -> dict[str, Callable[[], object]]:
    """The forwards compared at one size; logits of the last token alone, as headatlas runs it."""
    model = random_model(width, length)
    made = batch(model, torch.randint(5, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0)))
    needs = frozenset().union(*(one.needs for one in all_probes().values()))

    def plain() -> object:
        with torch.no_grad():
            return model.network(input_ids=made.input_ids, use_cache=False, logits_to_keep=1)

    def maps() -> object:
        model.network.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                return model.network(
                    input_ids=made.input_ids, use_cache=False, logits_to_keep=1, output_attentions=True
                )
        finally:
            model.network.set_attn_implementation("sdpa")

    found: dict[str, Callable[[], object]] = {
        "forward": plain,
        "forward with every probe": lambda: observe(model, made, needs, on_layer=lambda stats: None),
        "forward with every statistic": lambda: observe(model, made, kernels.EVERYTHING, on_layer=lambda stats: None),
    }
    if 4 * LAYERS * HEADS * length**2 <= EAGER_LIMIT:
        found["output_attentions=True"] = maps
    return found


def model_memory(width: int, length: int, provider: str) -> float:
    """Peak MB of one forward above the loaded model; call it in a fresh process."""
    call = model_providers(width, length)[provider]
    with torch.no_grad():
        torch.zeros(64, 64) @ torch.zeros(64, 64)
    return peak_megabytes(call)


def _alone(function: Callable[..., float], threads: int, *arguments: Any) -> float:
    """The result of a function in a fresh process."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        return round(pool.submit(function, *arguments).result(), 1)


def _device() -> str:
    names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _write(frame: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "bench.parquet")
    columns = list(frame.columns)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join("" if value != value else str(value) for value in row) + " |"
        for row in frame.itertuples(index=False)
    ]
    (folder / "bench.md").write_text("\n".join(lines) + "\n")
