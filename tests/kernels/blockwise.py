"""The float64 definition over blocks of queries, for calls too long to be materialised, on whatever device they are."""

from dataclasses import replace

import torch
from headatlas.kernels.aligned import with_aligned_maps
from headatlas.kernels.counts import band_count
from headatlas.kernels.inputs import AttentionInputs
from headatlas.kernels.reference import reference_stats
from headatlas.kernels.selected import tail_queries
from headatlas.kernels.stats import BLOCK_SIZE, FIELDS, KEY, KEY_GROUP, TAIL, TAIL_BLOCK, split_name

CELLS = 1 << 24
"""Cells of one block, of all heads together: 134 MB a tensor."""


def blockwise_stats(inputs: AttentionInputs, needs: frozenset[str], *, cells: int = CELLS) -> dict[str, torch.Tensor]:
    """`reference_stats` of every block of queries, put together; blocks of a map stay whole."""
    return with_aligned_maps(lambda call, names, _: _blockwise(call, names, cells), inputs, needs)


def _blockwise(inputs, needs, cells):
    batch, heads, queries, keys = inputs.shape
    rows = max(1, cells // (batch * heads * keys) // BLOCK_SIZE) * BLOCK_SIZE
    of_tail = frozenset(name for name in needs if axes(name) in (TAIL, TAIL_BLOCK))
    extra = {"received"} if "received_entropy" in needs else set()
    slices = [queries_of(inputs, start, min(start + rows, queries)) for start in range(0, queries, rows)]
    blocks = []
    for one in slices:
        found = reference_stats(one, frozenset(needs - of_tail | extra))
        for name in found:
            if name.startswith("future_average"):  # sums, until all are in
                found[name] *= band_count(one, *map(int, split_name(name)[1]))[:, None]
        blocks.append(found)
    whole = {name: _together(name, inputs, blocks) for name in (needs - of_tail) | {"visible_keys"}}
    for name in of_tail:
        tail = tail_queries(inputs, int(split_name(name)[1][0]))
        first = int(torch.where(tail < 0, queries - 1, tail).min())
        whole |= reference_stats(queries_of(inputs, first, queries), frozenset({name})) | {
            "visible_keys": whole["visible_keys"]
        }
    return whole


def _together(name, inputs, blocks):
    """One field of the whole call from that of its blocks of queries."""
    base, arguments = split_name(name)
    values = [found[name] for found in blocks]
    if base == "value_norm":
        return values[0]
    if base == "received_entropy":  # sum_i p ln p = C (ln C - H) for each block
        received = torch.stack([found["received"] for found in blocks])
        total = received.sum(0)
        information = (torch.xlogy(received, received) - received * torch.stack(values)).sum(0)
        return torch.where(total > 1e-30, total.clamp(min=1e-30).log() - information / total.clamp(min=1e-30), 0.0)
    if base == "future_average":
        count = band_count(inputs, *map(int, arguments))[:, None]
        return torch.where(count > 0, sum(values) / count.clamp(min=1), 0.0)
    return sum(values) if axes(name) in (KEY, KEY_GROUP) else torch.cat(values, 2)


def axes(name):
    return FIELDS[split_name(name)[0]].axes


def queries_of(inputs: AttentionInputs, start: int, stop: int) -> AttentionInputs:
    """The call of queries start..stop-1 alone."""
    view, rule = inputs.visibility, inputs.visibility.rule

    def cut(tensor):
        return None if tensor is None else tensor[:, start:stop]

    return replace(
        inputs,
        query=inputs.query[:, :, start:stop],
        bias=None if inputs.bias is None else inputs.bias[:, :, start:stop],
        query_groups=cut(inputs.query_groups),
        query_tokens=cut(inputs.query_tokens),
        targets={name: cut(target) for name, target in inputs.targets.items()},
        visibility=replace(
            view,
            offset=view.offset + start,
            query_mask=cut(view.query_mask),
            rule=None if rule is None else lambda batch, query, key: rule(batch, query + start, key),
        ),
    )
