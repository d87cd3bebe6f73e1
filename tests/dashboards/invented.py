"""An invented store, written with the real writer: heads with known roles, so tests can say what must stand out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from headatlas.data.store import open_store

WORDS = ["harbour", "lantern", "copper", "winter", "river", "signal", "garden", "marble", "engine", "velvet", "orchard"]
LENGTHS = (64, 128, 256)
ROLES = {
    "previous": {(1, 4), (2, 7), (4, 11)},
    "duplicate": {(0, 1), (0, 10), (3, 0)},
    "induction": {(5, 1), (5, 5), (6, 9), (7, 2)},
}
GU = "Gu et al. 2024, When Attention Sink Emerges in Language Models, section 3"
ELHAGE = "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"
CARDS: dict[str, dict[str, Any]] = {}


def card(
    name: str, family: str, title: str, unit: str, bounds: list[Any], formula: str, summary: str, higher: str, caveat: str,
    source: str, parts: tuple[str, ...] = ("",),
) -> None:  # fmt: skip
    """Adds a probe card as a header stores it."""
    CARDS[name] = {
        **{"name": name, "version": 1, "family": family, "title": title, "unit": unit, "bounds": bounds},
        **{"formula": formula, "summary": summary, "higher": higher, "caveat": caveat, "source": source},
        **{"parts": [part for part in parts if part], "binary": False, "per": "query"},
    }


card("first_token_mass", "sinks", "First-token mass", "mass", [0, 1], "alpha_1 = mean_i p_i,1",
     "Mean attention weight on the first real token.", "the head parks its attention on the first token",
     "says nothing of what the head writes", GU)  # fmt: skip
card("sink_rate", "sinks", "Sink rate (Sink₁, eps 0.3)", "share of examples", [0, 1], "1[alpha_1 > 0.3]",
     "Whether the first token receives more than 0.3 on average.", "in most texts this head is a first-token sink",
     "depends on eps and on the length", GU)  # fmt: skip
card("entropy", "entropy", "Entropy", "nats", [0, None], "mean_i −sum_j p_ij ln p_ij",
     "How spread out the attention of a query is.", "attention is diffuse: many keys share the mass",
     "which keys are read; it grows with length", "Zhai et al. 2023, Preventing Attention Entropy Collapse")  # fmt: skip
card("normalized_entropy", "entropy", "Normalized entropy", "share of the maximum", [0, 1], "mean_i H_i / ln n_i",
     "Entropy as a share of the most it could be.", "attention is close to uniform over what is visible",
     "which keys are read", "Clark et al. 2019, What Does BERT Look At?, section 3.3")  # fmt: skip
card("entropy_bound_gap", "entropy", "Entropy bound gap", "nats", [0, None], "mean_i H_i − H_min(sigma)",
     "Distance from the entropy that the logit scale allows.", "the head could be much sharper than it is",
     "why it is not sharper", "Zhai et al. 2023, theorem 3.1")  # fmt: skip
card("previous_token", "patterns", "Previous token", "mass", [0, 1], "mean_i p_i,i−1",
     "Attention to the token just before.", "a previous-token head: it carries each token one step on",
     "that a later head uses it; that takes an intervention", ELHAGE)  # fmt: skip
card("duplicate_token", "patterns", "Duplicate token", "mass", [0, 1], "mean_i sum_{j: token_j = token_i} p_ij",
     "Attention to earlier copies of the current token.", "the head finds where this token stood before",
     "whether it copies it", "Wang et al. 2022, Interpretability in the Wild, section 3.2")  # fmt: skip
card("induction", "patterns", "Induction", "mass", [0, 1], "mean_i sum_{j: token_{j−1} = token_i} p_ij, second copy",
     "Attention to the token after the earlier copy of this one.",
     "an induction head: it looks for what followed last time, which predicts the next token",
     "that the head raises the logit of that token; only that it looks there",
     "Olsson et al. 2022, In-context Learning and Induction Heads")  # fmt: skip
card("mean_distance", "reach", "Mean distance", "tokens", [0, None], "mean_i sum_j p_ij |i − j|",
     "How far back a query looks on average.", "the head reads far away, or parks on the first token",
     "whether the far reading is a sink: see first-token mass", "Vig and Belinkov 2019, section 4.3")  # fmt: skip
card("window_mass", "reach", "Window mass", "mass", [0, 1], "mean_i sum_j p_ij over |i − j| < 32",
     "Attention inside the last 32 tokens.", "a local head: a window of 32 tokens would barely change it",
     "what the little mass outside of the window does", "Xiao et al. 2024, DuoAttention, section 2")  # fmt: skip
card("effective_keys", "entropy", "Effective keys", "keys", [1, None], "mean_i 1 / sum_j p_ij²",
     "How many keys a query reads in effect.", "the mass is shared by many keys", "which ones",
     "Inverse participation ratio, the exponential of the Rényi entropy of order 2")  # fmt: skip
EVERY = tuple(CARDS)
card("group_mass", "allocation", "Group mass", "mass", [0, 1], "mean_i sum_{j in group} p_ij",
     "Attention to each group of tokens.", "the group holds most of the mass", "what is read from it", GU,
     parts=("bos", "rest"))  # fmt: skip


def header_of(model: str, *, layers: int, heads: int, kv_heads: int, examples: int, probes: tuple[str, ...]) -> dict:
    """A header with everything the writer asks for and the dashboard shows."""
    shape = {"layers": layers, "heads": heads, "kv_heads": kv_heads}
    return {
        "model": {"name": model, "digest": model, **shape, "towers": [{"name": "text", **shape}]},
        "tokenizer": {"digest": "words"},
        "data": {
            **{"name": "repeats", "spec": "repeats:length=64+128+256", "digest": "0"},
            **{"strata": ["length"], "groups": ["repeat"], "examples": examples},
        },
        **{"dtype": "float32", "device": "cpu", "backend": "streaming", "bos": "default", "seed": 0},
        "probes": {name: CARDS[name] for name in probes},
        **{"chunk_size": 16, "keep_positions": 0, "versions": {"headatlas": "0.1.0"}},
    }


def examples_of(count: int) -> pd.DataFrame:
    """Prompts of repeated random words, spread evenly over the lengths."""
    draw = np.random.default_rng(3)
    halves = [" ".join(draw.choice(WORDS, 30)) for _ in range(count)]
    lengths = [LENGTHS[index * len(LENGTHS) // count] for index in range(count)]
    names = [f"repeats-{index:03d}" for index in range(count)]
    return pd.DataFrame(
        {
            **{"example": range(count), "id": names, "dataset": "repeats", "cluster": names, "tokens": lengths},
            **{"text": [f"{half} {half}" for half in halves], "c_length": lengths},
        }
    )


def invent(layers: int, heads: int, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """[example, layer * head] values for each probe, from a made-up but coherent set of heads."""
    draw = np.random.default_rng(11)
    place = [(layer, head) for layer in range(layers) for head in range(heads)]
    depth, total = np.array([layer / max(layers - 1, 1) for layer, _ in place]), layers * heads

    def noise(scale: float) -> np.ndarray:
        return draw.normal(0, scale, (lengths.size, total))

    previous, duplicate, induction = (np.array([p in ROLES[role] for p in place], float) for role in ROLES)
    busy = np.clip(previous + duplicate + induction, 0, 1)
    sink = np.clip(0.08 + 0.75 / (1 + np.exp(-9 * (depth - 0.35))) * draw.beta(5, 2, total) - 0.55 * busy, 0.01, 0.97)
    mass = np.clip(sink + noise(0.035), 0, 1)
    spread = np.clip((1 - sink) * draw.uniform(0.35, 1.0, total) - 0.5 * busy, 0.04, 1)
    longest = np.log(lengths)[:, None]
    entropy = np.clip(spread * longest + noise(0.09), 0.01, None)
    reach = np.clip(0.5 * sink + 0.3 * spread + 0.4 * induction - 0.3 * previous, 0.005, 1) * lengths[:, None]
    return {
        "first_token_mass": mass,
        "sink_rate": (mass > 0.3).astype(float),
        "entropy": entropy,
        "normalized_entropy": np.clip(entropy / longest, 0, 1),
        "entropy_bound_gap": np.clip(entropy * 0.8 - 0.1, 0, None),
        "previous_token": np.clip(0.03 + 0.82 * previous + 0.12 * draw.beta(1, 6, total) + noise(0.02), 0, 1),
        "duplicate_token": np.clip(0.01 + 0.6 * duplicate + 0.05 * draw.beta(1, 6, total) + noise(0.012), 0, 1),
        "induction": np.clip(0.012 + 0.74 * induction + 0.1 * draw.beta(1, 9, total) + noise(0.02), 0, 1),
        "mean_distance": np.clip(reach + noise(1.2), 0, None),
        "window_mass": np.clip(1 - 0.8 * sink - 0.5 * induction - 16 / lengths[:, None] * spread + noise(0.02), 0, 1),
        "effective_keys": np.exp(entropy * 0.85),
        "group_mass:bos": mass,
        "group_mass:rest": 1 - mass,
    }


def rows_of(name: str, part: str, members: np.ndarray, grid: np.ndarray, heads: int) -> pd.DataFrame:
    """The rows of one probe part over some examples; grid is [example, layer * head]."""
    flat = np.tile(np.arange(grid.shape[1]), members.size)
    columns = {"example": np.repeat(members, grid.shape[1]), "probe": name, "part": part, "tower": "text"}
    return pd.DataFrame(
        {**columns, "layer": flat // heads, "head": flat % heads, "value": grid.ravel(), "n_queries": 63}
    )


def write_run(
    store: Path,
    model: str = "gpt2",
    *,
    layers: int = 12,
    heads: int = 12,
    kv_heads: int | None = None,
    examples: int = 96,
    probes: tuple[str, ...] = EVERY,
    chunks: int | None = None,
    gaps: tuple[int, ...] = (),
    error: str | None = None,
    parent: str | None = None,
    share: float = 1.0,
) -> str:
    """Writes a run, returns its id; `chunks` stops early, `gaps` are layers where the entropy family is undefined.

    With `parent` it is that run's baseline of random weights; `share` is what its values are of the run's.
    """
    shape = {"layers": layers, "heads": heads, "kv_heads": kv_heads or heads}
    frame = examples_of(examples)
    values = invent(layers, heads, frame["c_length"].to_numpy(float))
    undefined = np.isin(np.arange(layers * heads) // heads, gaps)
    header = header_of(model, **shape, examples=examples, probes=probes)
    if parent is not None:
        header["model"]["digest"] = "random"
        header["parents"] = [{"run": parent, "relation": "baseline-of", "kind": "random"}]
    writer = open_store(store, create=True).writer(header)
    writer.write_examples(frame)
    for chunk in range(-(-examples // 16))[:chunks]:
        members = np.arange(chunk * 16, min((chunk + 1) * 16, examples))
        tables = []
        for name in probes:
            for part in CARDS[name]["parts"] or [""]:
                grid = share * values[f"{name}:{part}" if part else name][members]
                grid[:, undefined & (CARDS[name]["family"] == "entropy")] = np.nan
                tables.append(rows_of(name, part, members, grid, heads))
        writer.write_rows(chunk, pd.concat(tables, ignore_index=True), probes)
    partial = "failed" if error else "interrupted"
    writer.finish("done" if chunks is None else partial, error)
    return writer.path.name


SCORE: dict[str, Any] = {
    **{"version": 1, "family": "score", "bounds": [0, 1], "parts": [], "per": "example", "formula": "-", "summary": ""},
    **{"name": "exact_match", "title": "Exact match", "unit": "share of examples", "binary": True},
}
LOSS = {**SCORE, "name": "answer_loss", "title": "Answer loss", "unit": "nats", "binary": False, "bounds": [0, None]}
EDITED = ("L5H1", "L5H5")
SETS = 5


def write_edit(store: Path, model: str = "gpt2", *, kind: str = "zero", chosen_by: str | None = None) -> dict[str, str]:
    """Writes the four runs of an edit of two heads, returns condition -> id.

    Of 20 prompts the unedited model answers 18, the edited one 2, the others none; random set k answers 18 - 2 k.
    """
    base = _scored(store, model, "unedited", [], [18])
    heads = [[f"L5H{2 * number}", f"L6H{number}"] for number in range(SETS)]
    edits = [[{"kind": kind, "heads": list(EDITED)}]]
    asked = [{"run": base, "relation": "edit-of", "as": "edited"}]
    if chosen_by:
        told = {"run": chosen_by, "relation": "chosen-by", "reading": "induction:top=2", "left_out": 5}
        asked.append(told)
    edited = _scored(store, model, f"edited: {kind} of {', '.join(EDITED)}", edits, [2], asked)
    beside = {"run": base, "relation": "edit-of", "beside": edited}
    found = {"unedited": base, "edited": edited}
    found["random"] = _scored(
        store, model, f"random: {SETS} random sets from the same layers", [[{"kind": kind, "heads": one}] for one in heads],
        [18 - 2 * number for number in range(SETS)], [beside | {"as": "random"}],
    )  # fmt: skip
    rest = [f"L{layer}H{head}" for layer in range(12) for head in range(12)]
    rest = [name for name in rest if name not in EDITED]
    found["complement"] = _scored(
        store, model, "complement: all other heads", [[{"kind": kind, "heads": rest}]], [0], [beside | {"as": "complement"}]
    )  # fmt: skip
    return found


def write_budget(store: Path, model: str = "gpt2") -> str:
    """Writes a budget of 4 heads in the order of `induction`, which names 2 of them, and in two random orders."""
    sets = [[], ["L0H0"], ["L0H0", "L0H1"], ["L0H0", "L0H1", "L1H0", "L1H1"], ["L1H1"], ["L1H0", "L1H1"]]
    edits = [[{"kind": "zero", "heads": one}] if one else [] for one in sets]
    orders = {"induction": [0, 1, 2, 3], "random 0": [0, 4, 5, 3], "random 1": [0, 1, 2, 3]}
    held = {"score": "exact_match", "sizes": [0, 1, 2, 4], "orders": orders, "named": {"induction": 2}}
    return _scored(store, model, "budget curves", edits, [18, 8, 2, 0, 18, 16], budget=held)


def _scored(
    store: Path, model: str, said: str, edits: list, right: list[int], parents: list | None = None, **more: Any
) -> str:  # fmt: skip
    """A run of 20 prompts; variant v answers `right[v]` of them, and its loss is 0 where it does, else 2."""
    count, names = 20, [str(index) for index in range(len(right))] if len(right) > 1 else []
    header = header_of(model, layers=12, heads=12, kv_heads=12, examples=count, probes=())
    header["data"] |= {"strata": [], "spec": "repeats:length=64"}
    header |= {"kind": "edit", "said": said, "edits": edits, "parents": parents or [], **more}
    header["argv"] = ["headatlas", "edit", model, "--heads", ",".join(EDITED)]
    header["probes"] = {card["name"]: {**card, "parts": names} for card in (SCORE, LOSS)}
    writer = open_store(store, create=True).writer(header)
    writer.write_examples(examples_of(count))
    for chunk in range(2):
        members = np.arange(chunk * 16, min(count, (chunk + 1) * 16))
        for name in [one for one in header["probes"] if one not in writer.done(chunk)]:
            tables = []
            for part, hits in zip(names or [""], right, strict=True):
                value = (members < hits).astype(float) if name == "exact_match" else np.where(members < hits, 0.0, 2.0)
                row = {"example": members, "probe": name, "part": part, "layer": None, "head": None}
                tables.append(pd.DataFrame({**row, "value": value, "n_queries": 1}))
            writer.write_rows(chunk, pd.concat(tables, ignore_index=True), [name])
    writer.finish("done")
    return writer.path.name
