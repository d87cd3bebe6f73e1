"""One vector for each example and head: the head's output at a place of the prompt, layer by layer.

The output of a head is sum_j p_ij v_j, before the output projection. `last` is the last token of the prompt, `mean` the
mean over all its tokens (special ones too), and `answer` the mean over the tokens of the answer. For `last` and `mean`
the answer is not given to the model at all, so it can't be read off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.catalog import Dataset
from ..data.errors import UserError
from ..data.tokens import TokenBatch
from ..kernels.stats import AttentionStats
from .forward import observe
from .plan import Plan

PLACES = ("last", "mean", "answer")
"""Where the outputs of heads are taken."""
Vectors = dict[tuple[str, int], np.ndarray]
"""(tower, layer) -> float32 [example, head, d_head]."""


def data_at(data: Dataset, at: str) -> Dataset:
    """The data set as the model is to read it: without its answers, unless they are the place."""
    if at not in PLACES:
        raise UserError(f"expected a place of {', '.join(PLACES)}; came {at!r}")
    if at != "answer":
        return replace(data, examples=[replace(one, answer=None, answer_ids=None) for one in data.examples])
    silent = sum(not (one.answer or one.answer_ids) for one in data.examples)
    if silent:
        raise UserError(
            f"--at answer takes data that has answers; {silent} of {len(data.examples)} examples of {data.name!r} have "
            "none. Use --at last or mean"
        )
    return data


def head_vectors(plan: Plan, at: str, *, tell: Callable[[int], None] = lambda more: None) -> Vectors:
    """The vectors of every head at `at`, in the order of the plan's examples; a layer is reduced as soon as it ran."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for chosen in plan.batches(0, plan.data.examples):
        batch = plan.encode(chosen)
        where = mask_of(batch, at)

        def keep(stats: AttentionStats, where: Tensor = where) -> None:
            if stats.call.number == 0 and stats.query_groups is not None and not stats.call.cross:
                vectors = reduced(stats["output"], where.to(stats["output"].device))
                found.setdefault((stats.call.tower, stats.layer), []).append(vectors.cpu().numpy())

        observe(plan.model, batch, {"output"}, on_layer=keep)
        tell(len(chosen))
    return {place: np.concatenate(pieces) for place, pieces in found.items()}


def mask_of(batch: TokenBatch, at: str) -> Tensor:
    """bool [batch, query], the tokens whose outputs are taken."""
    real = batch.query_mask
    assert real is not None
    if at == "answer":
        return batch.group_mask("answer") & real
    if at == "mean":
        return real
    last = real.shape[1] - 1 - real.flip(1).to(torch.int8).argmax(1)
    return torch.nn.functional.one_hot(last, real.shape[1]).bool()


def reduced(output: Tensor, where: Tensor) -> Tensor:
    """[batch, head, d_head], the mean of outputs [batch, head, query, d_head] over the tokens `where` [batch, query].

    >>> reduced(torch.tensor([[[[1.0], [3.0], [8.0]]]]), torch.tensor([[True, True, False]])).tolist()
    [[[2.0]]]
    """
    chosen = where[:, None, :, None]
    kept = torch.where(chosen, output.float(), 0.0)
    return kept.sum(2) / chosen.sum(2)
