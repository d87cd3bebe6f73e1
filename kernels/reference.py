"""The definition of every attention statistic: full softmax maps in plain torch and float64.

Slow and O(n^2) in memory on purpose: it is what the streaming and Triton code is held against, and what models outside
the attention interface are measured with. `statistics_of_weights` takes any weights, wherever they come from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .aligned import leading_padding
from .inputs import AttentionInputs
from .selected import start_keys, tail_queries
from .stats import BLOCK_SIZE, LOWEST, NOTHING, parameters, split_name


def reference_stats(inputs: AttentionInputs, needs: frozenset[str]) -> dict[str, Tensor]:
    """Every field of `needs` from the materialised weights, float64."""
    logits, visible = materialised_logits(inputs)
    weighs = visible & (logits > LOWEST)
    masked = logits.masked_fill(~weighs, -torch.inf)
    everything = masked
    if inputs.sink_logits is not None:
        sink = inputs.sink_logits.double().view(1, -1, 1, 1).expand(*masked.shape[:3], 1)
        everything = torch.cat([masked, sink], dim=-1)
    logsumexp = everything.logsumexp(-1)
    weights = everything.softmax(-1)[..., : masked.shape[-1]].masked_fill(~weighs, 0.0)
    empty = ~weighs.any(-1)
    return statistics_of_weights(inputs, needs, weights, masked, logsumexp.masked_fill(empty, -torch.inf), visible)


def materialised_logits(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """z and visibility, both [batch, head, query, key]; z is finite also where nothing is visible."""
    batch, heads, queries, keys = inputs.shape
    key = inputs.key.double().repeat_interleave(inputs.repeats, dim=1)
    logits = inputs.scale * inputs.query.double() @ key.transpose(-1, -2)
    logits = inputs.capped(logits)
    if inputs.bias is not None:
        logits = logits + inputs.bias.double()
    example, row, column = (torch.arange(size, device=logits.device) for size in (batch, queries, keys))
    seen = inputs.visibility.shows(example[:, None, None], row[None, :, None], column)
    return logits, seen[:, None].expand(batch, heads, queries, keys)


def statistics_of_weights(
    inputs: AttentionInputs, needs: frozenset[str], weights: Tensor, logits: Tensor, logsumexp: Tensor, visible: Tensor
) -> dict[str, Tensor]:
    """Every field of `needs` for given weights p, masked logits z and visibility, each [batch, head, query, key]."""
    peak = logits.amax(-1)
    shifted = (logits - peak[..., None]).masked_fill(~visible, 0.0)
    distance = _distance(inputs)
    out = {"visible_keys": visible.sum(-1)}
    simple = {
        "logsumexp": lambda: logsumexp,
        "max_logit": lambda: peak,
        "max_weight": lambda: weights.amax(-1),
        "argmax_key": lambda: weights.argmax(-1),
        "row_mass": lambda: weights.sum(-1),
        "entropy": lambda: -torch.xlogy(weights, weights).sum(-1),
        "sum_squares": lambda: weights.square().sum(-1),
        "logit_sum": lambda: shifted.sum(-1),
        "logit_sum_squares": lambda: shifted.square().sum(-1),
        "mean_distance": lambda: (weights * distance).sum(-1),
        "mean_square_distance": lambda: (weights * distance.square()).sum(-1),
        "duplicate_mass": lambda: (weights * _same_token(inputs, 0)).sum(-1),
        "induction_mass": lambda: (weights * _same_token(inputs, 1)).sum(-1),
        "duplicate_keys": lambda: (_same_token(inputs, 0) & visible).sum(-1),
        "induction_keys": lambda: (_same_token(inputs, 1) & visible).sum(-1),
        "group_mass": lambda: weights @ _one_hot(inputs, "key")[:, None],
        "value_weighted_mass": lambda: (weights * _value_norms(inputs)) @ _one_hot(inputs, "key")[:, None],
        "output_norm": lambda: _output(inputs, weights).norm(dim=-1),
        "value_norm": lambda: _value_norms(inputs).squeeze(2),
        "received_entropy": lambda: _received_entropy(_real(inputs, weights)),
        "output": lambda: _output(inputs, weights),
        "received": lambda: _real(inputs, weights).sum(-2),
        "received_by_group": lambda: _real(inputs, weights).mT @ _one_hot(inputs, "query")[:, None],
        "pooled_mean": lambda: _pooled_mean(inputs, weights),
        "pooled_max": lambda: _pooled_max(inputs, weights),
    }
    for name in needs - {"visible_keys"}:
        base, arguments = split_name(name)
        if base in simple:
            out[name] = simple[base]()
        elif base == "weight_at":
            out[name] = _weight_at(weights, inputs.targets[arguments[0]])
    for name, (limit,) in parameters(needs, "clipped_distance"):
        out[name] = (weights * distance.clamp(max=limit)).sum(-1)
    for name, (width,) in parameters(needs, "window_mass"):
        out[name] = (weights * (distance < width)).sum(-1)
    for name, (count,) in parameters(needs, "start_mass"):
        keys = start_keys(inputs, count)[:, None, None, :]
        out[name] = _at(weights, keys.expand(*weights.shape[:3], -1), -1).sum(-1)
    for name, (count,) in parameters(needs, "tail_weights"):
        rows = tail_queries(inputs, count)[:, None, :, None]
        out[name] = _at(weights, rows.expand(*weights.shape[:2], -1, weights.shape[3]), -2)
    for name, (size,) in parameters(needs, "tail_estimate"):
        out[name] = _tail_estimate(inputs, visible, size)
    for name, (low, high) in parameters(needs, "future_average"):
        out[name] = _future_average(inputs, weights, low, high)
    return out


def _offsets(inputs: AttentionInputs) -> Tensor:
    """(i + offset) - j, [query, key]."""
    _, _, queries, keys = inputs.shape
    device = inputs.query.device
    query = torch.arange(queries, device=device, dtype=torch.float64)[:, None] + inputs.visibility.offset
    return query - torch.arange(keys, device=device, dtype=torch.float64)[None, :]


def _distance(inputs: AttentionInputs) -> Tensor:
    return _offsets(inputs).abs()


def _one_hot(inputs: AttentionInputs, of: str) -> Tensor:
    return torch.nn.functional.one_hot(inputs.labels(of), inputs.group_count).double()


def _real(inputs: AttentionInputs, weights: Tensor) -> Tensor:
    return weights * inputs.real_queries()[:, None, :, None]


def _at(weights: Tensor, index: Tensor, axis: int) -> Tensor:
    """Weights at places of one axis, 0 at -1."""
    return torch.where(index >= 0, weights.gather(axis, index.clamp(min=0)), 0.0)


def _tail_estimate(inputs: AttentionInputs, visible: Tensor, size: int) -> Tensor:
    """Block by block: the mean key that the last queries see, against their mean."""
    batch, heads, _, keys = inputs.shape
    real, mask = inputs.real_queries(), inputs.visibility.key_mask
    tail = real & (real.flip(1).cumsum(1).flip(1) <= size)
    place = torch.arange(keys, device=tail.device).expand(batch, -1) if mask is None else mask.cumsum(1) - 1
    key = inputs.key.double().repeat_interleave(inputs.repeats, dim=1)
    bias = visible.new_zeros(visible.shape, dtype=torch.float64) if inputs.bias is None else inputs.bias.double()
    bias = bias.expand(visible.shape)
    out = key.new_zeros(batch, heads, -(-keys // size))
    for example in range(batch):
        query = inputs.query[example, :, tail[example]].double().mean(1)
        logits = torch.full_like(out[example], -torch.inf)
        for block in range(out.shape[2]):
            columns = (place[example] // size == block).nonzero().squeeze(1)
            pairs = visible[example, :, tail[example]][..., columns]
            columns = columns[pairs[0].any(0)]
            if not len(columns):
                continue
            logits[:, block] = inputs.capped(inputs.scale * (query * key[example][:, columns].mean(1)).sum(-1))
            added = bias[example][:, tail[example]][..., columns]
            known = pairs[..., pairs[0].any(0)] & (added > LOWEST)
            mean = torch.where(known, added, 0.0).sum((1, 2)) / known.sum((1, 2))
            logits[:, block] += mean.nan_to_num(-torch.inf, neginf=-torch.inf)
        out[example] = logits.softmax(-1).nan_to_num(0.0)
    return out


def _output(inputs: AttentionInputs, weights: Tensor) -> Tensor:
    return weights @ inputs.value.double().repeat_interleave(inputs.repeats, dim=1)  # type: ignore[union-attr]


def _received_entropy(weights: Tensor) -> Tensor:
    received = weights.sum(-2, keepdim=True)
    shares = torch.where(received > NOTHING, weights / received, 0.0)
    return -torch.xlogy(shares, shares).sum(-2)


def _value_norms(inputs: AttentionInputs) -> Tensor:
    norms = inputs.value.double().norm(dim=-1).repeat_interleave(inputs.repeats, dim=1)  # type: ignore[union-attr]
    return norms[:, :, None, :]


def _same_token(inputs: AttentionInputs, shift: int) -> Tensor:
    """bool [batch, 1, query, key]: key j - shift holds the query's token and is another position."""
    query, key = inputs.query_tokens, inputs.key_tokens
    assert query is not None and key is not None
    before = torch.cat([key.new_full((key.shape[0], shift), -1), key[:, : key.shape[1] - shift]], dim=1)
    same = (query[:, :, None] == before[:, None, :]) & (before >= 0)[:, None, :]
    return (same & (_offsets(inputs) != -shift))[:, None]


def _weight_at(weights: Tensor, target: Tensor) -> Tensor:
    index = target.clamp(min=0)[:, None, :, None].expand(*weights.shape[:3], 1)
    return weights.gather(-1, index).squeeze(-1) * (target >= 0)[:, None]


def _future_average(inputs: AttentionInputs, weights: Tensor, low: int, high: int) -> Tensor:
    band = ((_offsets(inputs) >= low) & (_offsets(inputs) <= high)).double()
    real = inputs.real_queries().double()[:, None]
    count = real @ band
    return torch.where(count > 0, (_real(inputs, weights) * band).sum(-2) / count.clamp(min=1), 0.0)


def _pooled_mean(inputs: AttentionInputs, weights: Tensor) -> Tensor:
    block = _blocks(inputs, _real(inputs, weights)).sum((3, 5))
    real = inputs.real_queries()[:, None, :, None].double().expand(-1, -1, -1, weights.shape[3])
    count = _blocks(inputs, real / weights.shape[3]).sum((3, 5)).sum(-1, keepdim=True)
    return block / count.clamp(min=1)


def _pooled_max(inputs: AttentionInputs, weights: Tensor) -> Tensor:
    return _blocks(inputs, _real(inputs, weights)).amax((3, 5))


def _blocks(inputs: AttentionInputs, values: Tensor) -> Tensor:
    """[..., query, key] -> [batch, head, query block, BLOCK_SIZE, key block, BLOCK_SIZE], padded with zeros.

    The first block begins with the first real token: padding before it goes to the end.
    """
    lead = leading_padding(inputs)
    if lead is not None:
        values = torch.stack([one.roll((-first, -first), (-2, -1)) for one, first in zip(values, lead.tolist())])
    batch, heads, queries, keys = values.shape
    padded = torch.nn.functional.pad(values, (0, -keys % BLOCK_SIZE, 0, -queries % BLOCK_SIZE))
    rows, columns = -(-queries // BLOCK_SIZE), -(-keys // BLOCK_SIZE)
    return padded.view(batch, heads, rows, BLOCK_SIZE, columns, BLOCK_SIZE)
