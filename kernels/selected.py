"""Statistics of a few rows or columns of the map, from the logsumexp of each row: no second softmax, O(n) memory.

p_ij = exp(z_ij - logsumexp_i) for the pairs that are asked for alone. Cost: 2 d FLOPs and one exponential for each of
them, `first` keys x n queries or `last` queries x n keys. Beside these, what is a function of the values alone, and
what block-sparse attention guesses of the last queries' weights from pooled queries and keys.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .inputs import AttentionInputs
from .stats import LOWEST, split_name

BASES = frozenset({"start_mass", "tail_weights", "tail_estimate", "value_norm"})
"""Fields found here."""
BLOCK = 1024
"""Queries of `start_mass` at once."""


def selected(needs: frozenset[str]) -> frozenset[str]:
    """What of `needs` is found here."""
    return frozenset(name for name in needs if split_name(name)[0] in BASES)


def selected_stats(inputs: AttentionInputs, needs: frozenset[str], logsumexp: Tensor) -> dict[str, Tensor]:
    """The fields of `needs` that `selected` names; `logsumexp` [batch, head, query] in nats, of these very keys.

    Handed keys less their mean (`centred`), which softmax does not see, it is exact where all keys share much.
    """
    found: dict[str, Tensor] = {}
    for name in selected(needs):
        base, arguments = split_name(name)
        if base == "value_norm":
            assert inputs.value is not None
            norm = inputs.value.to(logsumexp.dtype).norm(dim=-1)
            found[name] = norm.repeat_interleave(inputs.repeats, 1)
        elif base == "start_mass":
            found[name] = _start_mass(inputs, logsumexp, int(arguments[0]))
        elif base == "tail_estimate":
            found[name] = _tail_estimate(inputs, logsumexp.dtype, int(arguments[0]))
        else:
            found[name] = _weights(inputs, logsumexp, tail_queries(inputs, int(arguments[0])), None)
    return found


def centred(inputs: AttentionInputs, dtype: torch.dtype) -> AttentionInputs:
    """The call in `dtype`, its keys less their mean where softmax does not see it."""
    key = inputs.key.to(dtype)
    if inputs.softcap is None:
        key = key - key.mean(2, keepdim=True)
    return replace(inputs, query=inputs.query.to(dtype), key=key)


def tail_queries(inputs: AttentionInputs, count: int) -> Tensor:
    """Index [batch, row] of the last `count` real queries, in order; -1 in front where there are fewer."""
    return _edge(inputs.real_queries().flip(1), count, inputs.shape[2]).flip(1)


def start_keys(inputs: AttentionInputs, count: int) -> Tensor:
    """Index [batch, key] of the first `count` real keys; -1 at the end where there are fewer."""
    batch, _, _, keys = inputs.shape
    mask = inputs.visibility.key_mask
    real = torch.ones(batch, keys, dtype=torch.bool, device=inputs.key.device) if mask is None else mask
    chosen = _edge(real, count, keys)
    return torch.where(chosen >= 0, keys - 1 - chosen, -1)


def _edge(real: Tensor, count: int, size: int) -> Tensor:
    """Counted from the other end, the place of the first `count` True of each row, -1 where there are fewer."""
    order = real.long().argsort(dim=1, descending=True, stable=True)[:, :count]
    there = real.gather(1, order)
    found = torch.where(there, size - 1 - order, -1)
    return torch.nn.functional.pad(found, (0, count - found.shape[1]), value=-1)


def _start_mass(inputs: AttentionInputs, logsumexp: Tensor, count: int) -> Tensor:
    batch, heads, queries, _ = inputs.shape
    keys = start_keys(inputs, min(count, inputs.shape[3]))
    mass = logsumexp.new_empty(batch, heads, queries)
    for start in range(0, queries, BLOCK):
        rows = torch.arange(start, min(queries, start + BLOCK), device=keys.device).expand(batch, -1)
        mass[:, :, rows[0]] = _weights(inputs, logsumexp, rows, keys).sum(-1)
    return mass


def _weights(inputs: AttentionInputs, logsumexp: Tensor, rows: Tensor, keys: Tensor | None) -> Tensor:
    """[batch, head, row, key] of queries `rows` [batch, row] and keys `keys` [batch, key]; 0 at -1 and where hidden.

    Without `keys`, of all keys.
    """
    row = rows.clamp(min=0)
    query = _picked(inputs.query, row).unflatten(1, (-1, inputs.repeats)).to(logsumexp.dtype)
    chosen = inputs.key if keys is None else _picked(inputs.key, keys.clamp(min=0))
    logits = query.flatten(2, 3) @ chosen.to(logsumexp.dtype).mT
    logits = inputs.capped(logits.mul_(inputs.scale)).unflatten(2, (inputs.repeats, -1)).flatten(1, 2)
    if inputs.bias is not None:
        taken = _bias_rows(inputs.bias, row)
        if keys is not None:
            taken = taken.gather(3, keys.clamp(min=0)[:, None, None].expand(*taken.shape[:3], -1))
        logits += taken
    known = logsumexp.gather(2, row[:, None].expand(-1, logsumexp.shape[1], -1))
    known = known.masked_fill(known == -torch.inf, torch.inf)
    return logits.sub_(known[..., None]).exp_().masked_fill_(~_seen(inputs, rows, keys)[:, None], 0.0)


def _tail_estimate(inputs: AttentionInputs, dtype: torch.dtype, size: int) -> Tensor:
    """[batch, head, key block] from the mean of the last `size` real queries and the mean key of each block."""
    rows = tail_queries(inputs, min(size, inputs.shape[2]))
    block = key_places(inputs) // size
    blocks = -(-inputs.shape[3] // size)
    real = (rows >= 0).to(dtype)
    query = torch.einsum("bhrd,br->bhd", _picked(inputs.query, rows.clamp(min=0)).to(dtype), real)
    query = query / real.sum(1).clamp(min=1)[:, None, None]
    pairs = _seen(inputs, rows, None)[:, None]  # [batch, 1, row, key]
    seen = pairs.any(2).to(dtype)  # [batch, 1, key]
    count = _by_block(seen, block, blocks)
    pooled = _by_block((inputs.key.to(dtype) * seen[..., None]).mT, block, blocks) / count.clamp(min=1)[:, :, None]
    logits = inputs.capped(inputs.scale * (query.unflatten(1, (-1, inputs.repeats)) @ pooled).flatten(1, 2))
    if inputs.bias is not None:
        bias = _bias_rows(inputs.bias, rows.clamp(min=0)).to(dtype)
        known = pairs & (bias > LOWEST)
        number = _by_block(known.to(dtype).sum(2), block, blocks)
        total = _by_block(torch.where(known, bias, 0.0).sum(2), block, blocks)
        logits = logits + torch.where(number > 0, total / number.clamp(min=1), -torch.inf)
    logits = logits.masked_fill(count == 0, -torch.inf)
    some = (logits > -torch.inf).any(-1, keepdim=True)
    return torch.where(some, logits.softmax(-1), 0.0)


def key_places(inputs: AttentionInputs) -> Tensor:
    """int64 [batch, key]: how many real keys stand before each; 0 for the first one, wherever padding is."""
    batch, _, _, keys = inputs.shape
    mask = inputs.visibility.key_mask
    if mask is None:
        return torch.arange(keys, device=inputs.key.device).expand(batch, -1)
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _by_block(values: Tensor, block: Tensor, blocks: int) -> Tensor:
    """Sums of values [batch, ..., key] over the keys of each block, [batch, ..., block]."""
    index = block.view(block.shape[0], *[1] * (values.dim() - 2), -1).expand(values.shape)
    return values.new_zeros(*values.shape[:-1], blocks).scatter_add_(-1, index, values)


def _bias_rows(bias: Tensor, row: Tensor) -> Tensor:
    """bias [batch or 1, head or 1, query, key] at queries `row` [batch, row]."""
    bias = bias.expand(row.shape[0], -1, -1, -1)
    return bias.gather(2, row[:, None, :, None].expand(-1, bias.shape[1], -1, bias.shape[3]))


def _picked(tensor: Tensor, index: Tensor) -> Tensor:
    """tensor [batch, head, place, d] at places [batch, chosen]."""
    return tensor.gather(2, index[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[-1]))


def _seen(inputs: AttentionInputs, rows: Tensor, keys: Tensor | None) -> Tensor:
    """bool [batch, row, key], False at -1; of all keys without `keys`."""
    batch, _, _, count = inputs.shape
    keys = torch.arange(count, device=rows.device)[None] if keys is None else keys
    examples = torch.arange(batch, device=rows.device)[:, None, None]
    return inputs.visibility.shows(examples, rows[:, :, None], keys[:, None, :])
