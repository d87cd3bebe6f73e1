"""The heads of one prompt, measured in memory, and the highest of them in words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..data.errors import UserError
from ..data.heads import head_name
from ..kernels.stats import AttentionStats
from .batching import batch
from .forward import observe
from .models import Model
from .probe import Probe


def look(model: Model, prompt: str, probes: Sequence[Probe], *, bos: str = "default") -> pd.DataFrame:
    """Every reading of every head on one prompt: probe, part, tower, layer, head, place, value, unit.

    Probes that need labelled tokens the prompt does not have are left out; undefined values too.
    """
    if model.tokenizer is None:
        raise UserError(f"{model.name} comes without a tokenizer; `look` takes text. Use ha.observe with token ids")
    made = batch(model, [prompt], bos=bos)
    fitting = [one for one in probes if all(made.has_group(group) for group in one.groups)]
    if not fitting:
        raise UserError("none of these probes can be read from a plain prompt: they need labelled tokens")
    records: list[dict[str, object]] = []

    def take(stats: AttentionStats) -> None:
        for one in fitting:
            if one.applies(stats):
                records.extend(_records(one, stats))

    observe(model, made, frozenset().union(*(one.needs for one in fitting)), on_layer=take)
    defined = [record for record in records if record["value"] == record["value"]]
    if not defined:
        names = ", ".join(one.name for one in fitting)
        tokens = len(made.ids_of(0))
        raise UserError(f"{names}: undefined for every head of {model.name} on this prompt of {tokens} tokens")
    frame = pd.DataFrame(defined)
    order = {one.name: index for index, one in enumerate(fitting)}
    return frame.sort_values("probe", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)


def highest(values: pd.DataFrame, top: int) -> list[tuple[str, str, str]]:
    """Per reading: its name, its unit, and its `top` highest heads in words."""
    rows = []
    for _, here in values.groupby(["probe", "part"], sort=False):
        best = here.nlargest(top, "value")
        heads = [f"{place} {value:.3f}" for place, value in zip(best["place"], best["value"], strict=True)]
        first = here.iloc[0]
        rows.append((f"{first['probe']} {first['part']}".strip(), first["unit"], "   ".join(heads)))
    return rows


def _records(one: Probe, stats: AttentionStats) -> list[dict[str, object]]:
    values = one.measure(stats).values[0]
    heads = range(values.shape[0]) if stats.call.heads else [None]
    return [
        {
            "probe": one.name,
            "part": part,
            "tower": stats.call.tower,
            "layer": stats.layer,
            "head": head,
            "place": head_name(stats.layer, head),
            "value": float(values[head or 0, index]),
            "unit": one.unit,
        }
        for index, part in enumerate(one.parts or ("",))
        for head in heads
    ]
