"""Baselines of a run: the same probes on the same prompts with one thing taken away, as runs of their own.

A baseline's header names the run it belongs to: `parents: [{"run": ID, "relation": "baseline-of", "kind": KIND}]`.
Random weights take away what was learned; shuffled tokens take away the order of the prompt. One baseline may belong to
several runs: two checkpoints of one architecture have the same random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RELATION = "baseline-of"
KINDS = {"random": "random weights", "shuffled": "shuffled tokens"}
"""kind -> what it is called in tables and pages."""


def parent_link(run: str, kind: str) -> dict[str, str]:
    """The entry in `parents` that makes a run the baseline `kind` of another."""
    return {"run": run, "relation": RELATION, "kind": kind}


def links_of(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of `parents` that make this run a baseline, oldest first; empty for a run of its own."""
    parents = header.get("parents") or []
    found = [one for one in parents if isinstance(one, Mapping) and one.get("relation") == RELATION]
    return [one for one in found if "run" in one and "kind" in one]


def kind_of(header: Mapping[str, Any]) -> str | None:
    """`random` or `shuffled` for a baseline, None for a run of its own."""
    links = links_of(header)
    return str(links[0]["kind"]) if links else None


def kind_words(link: Mapping[str, Any]) -> str:
    """What a baseline leaves out, in words; a kind of a later headatlas as it is spelled."""
    return KINDS.get(str(link["kind"]), str(link["kind"]))
