"""Prompts with their tokens in another order: what a head does here it does without the order of the text.

Within each prompt the ids of the body are permuted; the tokenizer's frame (BOS, CLS, SEP), what a chat template adds,
other special tokens and padding stay where they are, and so do all labels: the position that was the needle's is still
labelled needle. Lengths and the count of each token are those of the prompt. A body of one token stays as it is, and
any order may come, the old one too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .errors import DataError
from .groups import GROUPS
from .sampling import stream
from .tokens import IGNORED, TokenBatch

FRAME = ("bos", "separator", "template", "padding")
"""Labels of tokens that are not moved."""


def shuffle(batch: TokenBatch, *, seed: int, fixed: Collection[int] = ()) -> TokenBatch:
    """The batch with each body permuted, by (seed, example id) alone; ids in `fixed` stay in place."""
    if batch.input_ids is None:
        raise DataError("the batch holds no token ids; only prompts of tokens can be shuffled")
    ids = batch.input_ids.clone()
    moving = _moving(batch, fixed)
    for row, name in enumerate(batch.example_ids):
        places = moving[row].nonzero()[:, 0]
        order = stream("shuffle", seed, name).permutation(len(places))
        ids[row, places] = ids[row, places[torch.as_tensor(order, dtype=torch.long)]]
    return replace(batch, input_ids=ids, targets=_targets(batch, ids))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids with a role of their own (BOS, SEP, mask, roles of a chat, ...); an unknown word's id alone is a word's."""
    if tokenizer is None:
        return frozenset()
    roles = {getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "cls", "sep", "pad", "mask")}
    return frozenset(tokenizer.all_special_ids) - ({getattr(tokenizer, "unk_token_id", None)} - roles)


def _moving(batch: TokenBatch, fixed: Collection[int]) -> Tensor:
    """Bool[batch, key]: the tokens that take part."""
    assert batch.input_ids is not None
    moving = torch.ones_like(batch.input_ids, dtype=torch.bool)
    if batch.query_mask is not None:
        moving &= batch.query_mask
    for name in FRAME:
        if batch.groups is not None and name in GROUPS and name in batch.group_names:
            moving &= ~batch.group_mask(name)
    return moving & ~torch.isin(batch.input_ids, torch.tensor(sorted(fixed), dtype=torch.long))


def _targets(batch: TokenBatch, ids: Tensor) -> Tensor | None:
    """What is to be predicted at the same places: the id that now follows."""
    if batch.targets is None:
        return None
    following = torch.cat([ids[:, 1:], ids[:, :1]], dim=1)
    return torch.where(batch.targets == IGNORED, IGNORED, following)
