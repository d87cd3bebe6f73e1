"""Files of cache policies: JSON that says what it is, and the matrix of DuoAttention's `full_attention_heads.tsv`.

The matrix has a row for each layer and a number for each KV head, tab separated, 1.0 where the cache is full. It holds
no model and no cache size. DuoAttention ships gates between 0 and 1 in this form; those become a policy by a share.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from .atomic import write_file
from .errors import UserError
from .policy import Policy, highest, rows_of

SUFFIXES = (".json", ".tsv")
FORMAT = "headatlas cache policy 1"
MEANING = (
    "full[layer][KV head] is 1 where the whole cache is kept, and 0 where the first `sinks` and the last `recent` "
    "tokens are kept alone"
)


def is_file_name(text: str) -> bool:
    """Whether `text` names a policy file rather than a reading."""
    return Path(text).suffix.lower() in SUFFIXES


def write_policy(policy: Policy, path: str | Path) -> Path:
    """Write a policy as its file name's ending says, .json or .tsv."""
    path = _known(path)
    text = policy_json(policy) if path.suffix.lower() == ".json" else policy_tsv(policy)
    write_file(path, lambda handle: handle.write(text.encode()))
    return path


def policy_json(policy: Policy) -> str:
    """A policy as JSON, a line for each layer."""
    head = {
        "format": FORMAT, "meaning": MEANING, "model": policy.model, "source": policy.source, "rule": policy.rule,
        "sinks": policy.sinks, "recent": policy.recent, "layers": policy.shape[0], "kv_heads": policy.shape[1],
    }  # fmt: skip
    rows = ",\n".join(f"  {json.dumps(list(map(int, row)))}" for row in policy.full)
    return f'{json.dumps(head, indent=1, ensure_ascii=False)[:-2]},\n "full": [\n{rows}\n ]\n}}\n'


def policy_tsv(policy: Policy) -> str:
    """A policy as a matrix [layer, kv_head] of 1.0 and 0.0."""
    return "".join("\t".join("1.0" if full else "0.0" for full in row) + "\n" for row in policy.full)


def read_policy(
    path: str | Path, *, full: float | None = None, sinks: int | None = None, recent: int | None = None
) -> Policy:
    """The policy of a file. A TSV does not say how many tokens streaming heads keep; gates in it need a share `full`.

    `sinks` and `recent` stand in for what a JSON file says.
    """
    path = _known(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"policy {path.name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix.lower() == ".tsv":
        return _from_matrix(path.name, matrix_of(path.name, text), full, sinks, recent)
    if full is not None:
        raise UserError(f"{path.name} is a policy, with nothing to choose from; leave out the share")
    found = _from_json(path.name, text)
    return replace(
        found, sinks=found.sinks if sinks is None else sinks, recent=found.recent if recent is None else recent
    )


def matrix_of(name: str, text: str) -> np.ndarray:
    """[layer, kv_head] of a TSV's numbers, clipped to 0..1."""
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = [[float(word) for word in line.split("\t")] for line in lines]
    except ValueError as error:
        raise UserError(f"{name}: expected numbers with tabs between them, a row for each layer; {error}") from None
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1:
        came = f"rows of {', '.join(map(str, widths))}" if rows else "no rows"
        raise UserError(f"{name}: expected a matrix, a row for each layer and a number for each KV head; came {came}")
    values = np.array(rows)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: expected gates from 0 to 1; came {values[~np.isfinite(values)][0]}")
    return values.clip(0, 1)


def _from_matrix(name: str, gates: np.ndarray, full: float | None, sinks: int | None, recent: int | None) -> Policy:
    """The policy of gates: those of 1, or a share of the highest."""
    if sinks is None or recent is None:
        raise UserError(f"{name} does not say what streaming heads keep; add --sinks and --recent, as --sinks 4 "
                        "--recent 16")  # fmt: skip
    if full is None:
        if not np.isin(gates, (0, 1)).all():
            raise UserError(f"{name} holds gates between 0 and 1; `headatlas policy {name} --full 0.5 --out "
                            "policy.json` makes a policy of the highest half")  # fmt: skip
        return Policy("", rows_of(gates == 1), sinks, recent, name, "")
    chosen = highest(gates, full)
    return Policy("", rows_of(chosen), sinks, recent, name, f"the highest {chosen.sum()} of {chosen.size} KV heads")


def _from_json(name: str, text: str) -> Policy:
    """The policy of JSON as `policy_json` writes it."""
    try:
        data = json.loads(text)
        full, sizes = np.array(data["full"]), (data["sinks"], data["recent"])
        sound = full.ndim == 2 and np.isin(full, (0, 1)).all() and all(type(one) is int for one in sizes)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{name}: expected a policy as `headatlas policy --out` writes it; {error!r}") from None
    if not sound:
        raise UserError(f"{name}: expected rows `full` of as many 0 and 1 each, and whole numbers `sinks`, `recent`")
    texts = (str(data.get(key) or "") for key in ("model", "source", "rule"))
    model, source, rule = texts
    return Policy(model, rows_of(full == 1), *sizes, source, rule)


def _known(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"policy {path.name}: expected a name that ends in {' or '.join(SUFFIXES)}")
    return path
