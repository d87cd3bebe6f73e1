"""The statistics of one attention call: their names, axes, units, and the container that holds them.

Weights of one row: p_ij = exp(z_ij - logsumexp_i), z_ij = cap(scale q_i . k_j) + bias_ij over the keys j that query i
can see.
A learned sink logit takes part in logsumexp but is no key, so there the weights of a row sum to less than 1.
A row in which no visible key has a logit above LOWEST is *empty*: `logsumexp` and `max_logit` are -inf, and all else is
0 but for counts of visible keys. Sums of logits are not defined in rows with a logit of LOWEST or less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROW = "[batch, head, query]"
ROW_GROUP = "[batch, head, query, group]"
KEY = "[batch, head, key]"
KEY_GROUP = "[batch, head, key, group]"
TAIL = "[batch, head, tail query, key]"
TAIL_BLOCK = "[batch, head, key block]"
BLOCK = "[batch, head, query block, key block]"

BLOCK_SIZE = 64
"""Rows and columns of one cell of a pooled map, counted from the first real token (see `aligned.py`)."""
NOTHING = 1e-30
"""A key that receives no more than this receives nothing: float32 could not say from whom."""
FLOOR = -1e29
"""A logit of no more bits than this weighs nothing, as one of -inf does: so masks are written as numbers."""
LOWEST = FLOOR * math.log(2)
"""FLOOR in nats."""


@dataclass(frozen=True)
class Field:
    """One statistic: axes, unit, meaning, and the whole-number parameters behind its name (`window_mass:16`)."""

    axes: str
    unit: str
    meaning: str
    parameters: tuple[str, ...] = ()
    version: int = 1


FIELDS: Mapping[str, Field] = {
    "visible_keys": Field(ROW, "keys", "number of keys the query may see"),
    "logsumexp": Field(ROW, "nats", "ln sum_j exp z_ij, the learned sink logit included"),
    "max_logit": Field(ROW, "logit", "max_j z_ij"),
    "max_weight": Field(ROW, "mass", "max_j p_ij"),
    "argmax_key": Field(ROW, "key index", "argmax_j p_ij; any of them in a tie"),
    "row_mass": Field(ROW, "mass", "sum_j p_ij: 1, or less where a learned sink logit takes a share"),
    "entropy": Field(ROW, "nats", "-sum_j p_ij ln p_ij"),
    "sum_squares": Field(ROW, "1", "sum_j p_ij^2, the inverse participation ratio"),
    "logit_sum": Field(ROW, "logit", "sum_j (z_ij - max_logit_i) over visible keys"),
    "logit_sum_squares": Field(ROW, "logit^2", "sum_j (z_ij - max_logit_i)^2 over visible keys"),
    "mean_distance": Field(ROW, "tokens", "sum_j p_ij |i - j|"),
    "mean_square_distance": Field(ROW, "tokens^2", "sum_j p_ij (i - j)^2"),
    "clipped_distance": Field(ROW, "tokens", "sum_j p_ij min(|i - j|, limit)", ("limit",)),
    "window_mass": Field(ROW, "mass", "sum_j p_ij over |i - j| < width", ("width",)),
    "duplicate_mass": Field(ROW, "mass", "sum_j p_ij over other keys that hold the query's own token"),
    "induction_mass": Field(ROW, "mass", "sum_j p_ij over keys whose preceding token is the query's token"),
    "duplicate_keys": Field(ROW, "keys", "number of other visible keys that hold the query's own token"),
    "induction_keys": Field(ROW, "keys", "number of visible keys whose preceding token is the query's token"),
    "weight_at": Field(ROW, "mass", "p_ij at one named key per query; 0 where the query has none", ("target",)),
    "group_mass": Field(ROW_GROUP, "mass", "sum_j p_ij over the keys of each group"),
    "value_weighted_mass": Field(ROW_GROUP, "norm", "sum_j p_ij ||v_j|| over the keys of each group"),
    "start_mass": Field(ROW, "mass", "sum_j p_ij over the first keys that are no padding", ("keys",)),
    "tail_weights": Field(TAIL, "mass", "p_ij of the last real queries; 0 in rows that do not exist", ("queries",)),
    "tail_estimate": Field(
        TAIL_BLOCK,
        "mass",
        "softmax over blocks of `size` keys of cap(scale mean q_i . mean k_j) + mean bias_ij, i the last `size` real "
        "queries, j the keys of the block that any of them sees; a learned sink logit takes no part",
        ("size",),
    ),
    "output_norm": Field(ROW, "norm", "||sum_j p_ij v_j||"),
    "output": Field("[batch, head, query, d_head]", "activation", "sum_j p_ij v_j"),
    "received": Field(KEY, "mass", "sum_i p_ij over the real queries"),
    "received_by_group": Field(KEY_GROUP, "mass", "sum_i p_ij over the real queries of each group"),
    "received_entropy": Field(
        KEY, "nats", "-sum_i r_ij ln r_ij, r_ij = p_ij / received_j over the real queries; 0 where none is received"
    ),
    "value_norm": Field(KEY, "norm", "||v_j||"),
    "future_average": Field(
        KEY, "mass", "mean of p_ij over real queries low <= i - j <= high; 0 where there is none", ("low", "high")
    ),
    "pooled_mean": Field(
        BLOCK, "mass", "mass on a key block, averaged over the real queries of a query block", version=2
    ),
    "pooled_max": Field(BLOCK, "mass", "largest p_ij of a block pair, over the real queries", version=2),
}


@cache
def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """`future_average:10:100` -> (`future_average`, (`10`, `100`)), checked against the table of fields."""
    base, *arguments = name.split(":")
    if base not in FIELDS:
        raise KeyError(f"no attention statistic is called {base!r}; there are {', '.join(FIELDS)}")
    expected = FIELDS[base].parameters
    if len(arguments) != len(expected):
        pattern = ":".join((base, *(f"<{word}>" for word in expected)))
        raise KeyError(f"attention statistic {name!r}: expected {pattern}")
    if base != "weight_at" and not all(word.isdigit() for word in arguments):
        raise KeyError(f"attention statistic {name!r}: {' and '.join(expected)} must be whole numbers")
    return base, tuple(arguments)


def parameters(needs: Iterable[str], base: str) -> list[tuple[str, tuple[int, ...]]]:
    """The asked-for variants of one field with whole-number parameters: [(`window_mass:16`, (16,)), ...]."""
    found = [(name, split_name(name)) for name in sorted(needs)]
    return [(name, tuple(map(int, arguments))) for name, (field_name, arguments) in found if field_name == base]


@dataclass(frozen=True)
class Call:
    """Where in the model one attention call happened."""

    tower: str = "text"
    layer: int = 0
    module: str = ""
    number: int = 0
    """How many calls this module made before, in the same forward."""
    causal: bool = True
    cross: bool = False
    window: int | None = None
    """Visible keys of a sliding-window layer, the query itself included; None without a window."""
    heads: int = 0
    kv_heads: int = 0


@dataclass(frozen=True)
class AttentionStats(Mapping[str, "Tensor"]):
    """The statistics of one attention call by field name; `stats.entropy` and `stats["window_mass:16"]` both read one.

    A field that was not computed, or that the reader did not declare, is a KeyError which names the reader.
    """

    values_by_name: Mapping[str, Tensor]
    call: Call = field(default_factory=Call)
    group_names: tuple[str, ...] = ("rest",)
    real_queries: Tensor | None = None
    """bool [batch, query], True = a real token; None where every query is one."""
    query_groups: Tensor | None = None
    """int8 [batch, query], index into `group_names`; None in a tower whose tokens carry no labels."""
    key_groups: Tensor | None = None
    """int8 [batch, key], as `query_groups`."""
    key_tokens: Tensor | None = None
    """[batch, key], the ids of the keys; None where the batch does not know them."""
    key_delimiters: Tensor | None = None
    """bool [batch, key], True for a key without letter or digit; None where there is no tokenizer to tell."""
    layer_before: Mapping[str, Tensor] | None = None
    """`tail_weights:...` of the tower's layer before, averaged over its heads; None where there is none."""
    reader: str | None = None
    allowed: frozenset[str] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self.allowed is not None and name not in self.allowed:
            raise KeyError(f"{self.reader} reads the statistic {name!r} but does not declare it; add it to its `needs`")
        if name not in self.values_by_name:
            raise KeyError(
                f"statistic {name!r} was not computed for {self.reader or 'this call'}; ask for it in `needs` "
                f"(computed: {', '.join(sorted(self.values_by_name))})"
            )
        return self.values_by_name[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name if self.allowed is None else self.allowed & self.values_by_name.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def layer(self) -> int:
        """Zero-based layer of the call inside its tower."""
        return self.call.layer

    def read_by(self, reader: str, needs: frozenset[str]) -> AttentionStats:
        """The same statistics, limited to what `reader` declared."""
        return replace(self, reader=reader, allowed=needs | {"visible_keys"})

    def without_padding(self) -> AttentionStats:
        """A copy that is NaN where a query is padding; whole numbers stay as they are."""
        if self.real_queries is None or bool(self.real_queries.all()):
            return self
        padding = ~self.real_queries[:, None]

        def undefined(name: str, value: Tensor) -> Tensor:
            known = FIELDS.get(name.partition(":")[0])  # others are of the tokens of a stream, which are queries too
            of_queries = known is None or known.axes in (ROW, ROW_GROUP)
            if not of_queries or not value.is_floating_point():
                return value
            return value.masked_fill(padding if value.dim() == 3 else padding[..., None], float("nan"))

        return replace(
            self, values_by_name={name: undefined(name, value) for name, value in self.values_by_name.items()}
        )

    def map(self, change: object) -> AttentionStats:
        """A copy with `change(tensor)` applied to every field."""
        return replace(self, values_by_name={name: change(value) for name, value in self.values_by_name.items()})  # type: ignore[operator]
