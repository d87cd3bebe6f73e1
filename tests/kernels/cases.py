"""Attention calls of every kind, small enough to be materialised in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from headatlas.kernels.inputs import AttentionInputs, Visibility

EVERYTHING = frozenset(
    {
        "visible_keys", "logsumexp", "max_logit", "max_weight", "row_mass", "entropy", "sum_squares", "logit_sum",
        "logit_sum_squares", "mean_distance", "mean_square_distance", "clipped_distance:10", "clipped_distance:200",
        "window_mass:1", "window_mass:16", "window_mass:150", "duplicate_mass", "induction_mass", "duplicate_keys", "induction_keys", "weight_at:first",
        "weight_at:some", "group_mass", "value_weighted_mass", "output", "received", "received_by_group",
        "start_mass:1", "start_mass:4", "start_mass:300", "tail_weights:1",
        "tail_weights:70", "tail_estimate:16", "tail_estimate:128", "output_norm", "value_norm", "received_entropy", "future_average:0:5", "future_average:10:100", "pooled_mean", "pooled_max",
    }
)  # fmt: skip


def make(
    batch=2, heads=4, kv_heads=2, queries=200, keys=None, width=16, *, seed=0, visibility=None, groups=3, **rules
) -> AttentionInputs:
    """A random call with labels, tokens and targets for every statistic."""
    keys = queries if keys is None else keys
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=random)

    rules = {name: rule(normal) if callable(rule) else rule for name, rule in rules.items()}
    return AttentionInputs(
        query=2 * normal(batch, heads, queries, width), key=normal(batch, kv_heads, keys, width),
        value=normal(batch, kv_heads, keys, width), scale=width**-0.5, visibility=visibility or Visibility(after=0),
        key_groups=integers(groups, batch, keys).to(torch.int8), query_groups=integers(groups, batch, queries).to(torch.int8),
        group_count=groups, query_tokens=integers(9, batch, queries), key_tokens=integers(9, batch, keys),
        targets={"first": torch.zeros(batch, queries, dtype=torch.long), "some": integers(keys + 1, batch, queries) - 1},
        **rules,
    )  # fmt: skip


def infinite_bias(size: int = 72) -> AttentionInputs:
    """A call whose bias is -inf at every third key but the query's own and the one before it."""
    third = torch.ones(size, size).tril(-2).bool() & (torch.arange(size) % 3 == 1)
    return make(
        queries=size, heads=2, kv_heads=1, bias=lambda normal: normal(1, 1, size, size).masked_fill(third, -torch.inf)
    )


def number_mask(low: float = -100.0) -> AttentionInputs:
    """Five queries that like all keys alike, with a bias: -1e30, -inf, `low`, -1e30 at every other key, lowest float."""
    bias = torch.zeros(5, 5)
    bias[0], bias[1], bias[2], bias[4] = -1e30, -torch.inf, low, torch.finfo(torch.float32).min
    bias[3, 0::2] = -1e30
    call = make(batch=1, heads=2, kv_heads=1, queries=5, bias=bias[None, None])
    return replace(call, query=torch.zeros_like(call.query))


FINITE = EVERYTHING - {"logit_sum", "logit_sum_squares"}
"""What an infinite logit leaves defined."""


def lengths_mask(lengths: list[int], size: int, left: bool = False) -> torch.Tensor:
    """bool [batch, size], True for the first (or last) `lengths` positions."""
    positions = torch.arange(size)[None]
    real = torch.tensor(lengths)[:, None]
    return positions >= size - real if left else positions < real


def cases(size: int = 200, heads: int = 4) -> dict[str, AttentionInputs]:
    """One call per rule, and some of them together, most of them of `size` tokens; two heads share a kv head."""
    short = [size, size * 131 // 200]
    right, left = lengths_mask(short, size), lengths_mask(short, size, left=True)

    def call(**rules) -> AttentionInputs:
        return make(**{"queries": size, "heads": heads, "kv_heads": heads // 2} | rules)

    return {
        "causal": call(),
        "full": call(visibility=Visibility()),
        "window": call(visibility=Visibility(before=31, after=0)),
        "narrow window": call(visibility=Visibility(before=3, after=0), queries=size * 3 // 2),
        "wide window": call(visibility=Visibility(before=size * 3 // 4, after=0), queries=size * 5 // 3),
        "two-sided window": call(visibility=Visibility(before=20, after=20), queries=size * 5 // 3),
        "one token": make(queries=1),
        "odd length": make(queries=63, kv_heads=4),
        "multi-query": make(queries=65, kv_heads=1),
        "right padding": call(visibility=Visibility(after=0, query_mask=right)),
        "left padding": call(visibility=Visibility(after=0, key_mask=left, query_mask=left)),
        "padded encoder": call(visibility=Visibility(key_mask=right, query_mask=right)),
        "left padding and window": call(visibility=Visibility(before=40, after=0, key_mask=left, query_mask=left)),
        "rule": call(visibility=Visibility(after=0, rule=lambda b, q, k: (q // 50 == k // 50) | (k < 2 + b))),
        "cache": call(queries=30, keys=size, visibility=Visibility(after=0, offset=size - 30)),
        "cross": call(queries=40, keys=size, visibility=Visibility()),
        "queries before keys": make(queries=150, keys=20, visibility=Visibility(after=0, offset=-130)),
        "window past the keys": make(queries=100, keys=20, visibility=Visibility(before=3, after=0)),
        "keys from the next on": call(visibility=Visibility(after=-1)),
        "both edges and a middle": make(queries=300, visibility=Visibility(before=150, after=0)),
        "softcap": call(softcap=1.5),
        "sink logits": call(sink_logits=lambda normal: 2 * normal(heads)),
        "huge sink logits": call(sink_logits=torch.tensor([200.0, -200.0, 0.0, 90.0][:heads])),
        "bias": call(bias=lambda normal: normal(1, heads, size, size)),
        "bias of one head": call(bias=lambda normal: normal(2, 1, size, size)),
        "everything": call(
            visibility=Visibility(before=60, after=0, key_mask=left, query_mask=left),
            softcap=2.0, sink_logits=lambda normal: normal(heads), bias=lambda normal: normal(1, heads, size, size),
        ),
    }  # fmt: skip


def spiky() -> AttentionInputs:
    """One query whose logits are some 1,000 bits above the keys' mean, 14 bits less, and far below."""
    bits = torch.tensor([1000.0, 986.0, -1986.0]) * math.log(2)
    key = torch.nn.functional.pad(bits[:, None], (0, 15))[None, None]
    query = torch.zeros(1, 1, 1, 16)
    query[..., 0] = 1
    return AttentionInputs(query=query, key=key, value=torch.ones_like(key), visibility=Visibility())
