"""Heads chosen by a reading: `RUN:PROBE/PART@STRATUM:top=5`, or `:above=0.1`, or `:lowest=5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .agreement import find_values
from .errors import UserError

if TYPE_CHECKING:
    from .store import Store

RULE = re.compile(r"(top|lowest|above)=([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Selection:
    """Heads in the order of a reading, and the texts of the prompts that it was measured on."""

    heads: list[tuple[int, int]]
    texts: list[str]
    run: str
    """The id of the run that holds the reading."""
    rule: str
    """The reading and the rule without the run: `retrieval/score:top=4`."""

    @property
    def name(self) -> str:
        """The selection as it can be written again."""
        return f"{self.run}:{self.rule}"


def choose_heads(store: Store, text: str) -> Selection:
    """The heads that `text` names; heads where the reading is undefined are never chosen."""
    reading, _, rule = text.rpartition(":")
    match = RULE.fullmatch(rule)
    if match is None:
        raise UserError(f"{text!r}: expected RUN:PROBE:top=5, :lowest=5 or :above=0.1, as latest:retrieval/score:top=5")
    run, order, texts = ranked_heads(store, reading)
    if not order:
        raise UserError(f"{reading!r} has no value of any head; a reading of whole layers can't choose heads")
    how, amount = match[1], float(match[2])
    if how != "above" and (amount < 1 or amount != int(amount)):
        raise UserError(f"{text!r}: expected a whole number of heads, 1 or more")
    count = sum(value > amount for _, value in order) if how == "above" else int(amount)
    if count == 0 or count > len(order):
        top = ", ".join(f"{value:.3g}" for _, value in order[:3])
        raise UserError(f"{text!r}: that is {count} heads of {len(order)} with a value; the highest are {top}")
    taken = order[-count:][::-1] if how == "lowest" else order[:count]
    return Selection([place for place, _ in taken], texts, run, text.partition(":")[2])


def ranked_heads(store: Store, reading: str) -> tuple[str, list[tuple[tuple[int, int], float]], list[str]]:
    """(the run's id, [((layer, head), mean), ...] from the highest mean down, the texts of its prompts)."""
    found = find_values(store, reading)
    known: np.ndarray = ~np.all(np.isnan(found.values), axis=0)
    means = np.full(len(found.places), np.nan)
    means[known] = np.nanmean(found.values[:, known], axis=0)
    order = [int(index) for index in np.argsort(-means, kind="stable") if known[index]]
    texts = store.run(found.prompts[0]).examples()["text"].astype(str).tolist()
    return found.prompts[0], [(found.places[index], float(means[index])) for index in order], texts


def orders_of(store: Store, texts: Sequence[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
    """(reading -> its heads from the highest down, the texts of the prompts that the readings were made on).

    A run's id alone stands for all of its readings of heads.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    used: list[str] = []
    for text in texts:
        for reading in [text] if ":" in text else _readings_in(store, text):
            _, order, prompts = ranked_heads(store, reading)
            name = reading.partition(":")[2]
            found[name if name not in found else reading] = [place for place, _ in order]
            used += prompts
    if not found:
        raise UserError(f"{', '.join(texts)}: no reading of heads is held there; name a run of `headatlas measure`")
    return found, used


def _readings_in(store: Store, run: str) -> list[str]:
    """Every probe and part of a run with values of at least two heads that differ, spelled as readings."""
    heads = store.run(run).heads()
    heads = heads[heads["head"].notna() & heads["mean"].notna()]
    named = heads["probe"].astype(str) + "/" + heads["part"].astype(str)
    return [
        f"{run}:{name.rstrip('/')}" for name in dict.fromkeys(named) if len(set(heads.loc[named == name, "mean"])) > 1
    ]
