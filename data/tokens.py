"""A batch of prompts as tensors: ids, real tokens, one label per token, and what is to be predicted where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import DataError
from .groups import GROUPS, LABELS, PARENTS, check_group, family

__all__ = ["GROUPS", "IGNORED", "PARENTS", "TokenBatch"]

IGNORED = -100
"""In `targets`: nothing is to be predicted here (the value torch's cross entropy leaves out)."""


@dataclass(frozen=True)
class TokenBatch:
    """Prompts of one forward pass, padded on the right.

    `targets[b, q]` is the id that should follow position q, or `IGNORED`. `extra` holds what else the model is called
    with (pixel_values, decoder_input_ids, ...).
    """

    example_ids: tuple[str, ...]
    input_ids: Tensor | None = None  # Long[batch, key]
    lengths: Tensor | None = None  # Long[batch], real tokens
    groups: Tensor | None = None  # Int8[batch, key], index into group_names
    group_names: tuple[str, ...] = GROUPS
    query_mask: Tensor | None = None  # Bool[batch, key], True = a real token
    targets: Tensor | None = None  # Long[batch, key]
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.group_names) > len(GROUPS):
            raise DataError(f"expected at most {len(GROUPS)} token groups in a run; came {len(self.group_names)}")
        shapes = {
            name: tuple(tensor.shape)
            for name in ("input_ids", "groups", "query_mask", "targets")
            if (tensor := getattr(self, name)) is not None
        }
        if len(set(shapes.values())) > 1:
            raise DataError(f"expected tensors of one shape [batch, key]; came {shapes}")
        if any(shape[0] != len(self.example_ids) for shape in shapes.values()):
            raise DataError(f"expected one row for each of the {len(self.example_ids)} examples; came {shapes}")

    def __len__(self) -> int:
        return len(self.example_ids)

    def ids_of(self, index: int) -> list[int]:
        """The ids of one prompt, padding left out."""
        if self.input_ids is None:
            raise DataError("the batch holds no token ids; encode it from examples")
        ids = self.input_ids[index]
        return (ids if self.query_mask is None else ids[self.query_mask[index]]).tolist()

    def group_index(self, name: str) -> list[int]:
        """Indices into `group_names` of a label and of every label below it that the batch knows."""
        if name not in self.group_names:
            check_group(name)
        wanted = family(name) if name in LABELS else (name,)
        return [index for index, group in enumerate(self.group_names) if group in wanted]

    def answering(self) -> Tensor:
        """bool [batch, key], True where the next token is one of the answer."""
        return torch.nn.functional.pad(self.group_mask("answer")[:, 1:], (0, 1), value=False)

    def has_group(self, name: str) -> bool:
        """Whether any token of the batch carries the label or one below it."""
        indices = self.group_index(name)
        if self.groups is None or not indices:
            return False
        return bool(torch.isin(self.groups, torch.tensor(indices, dtype=self.groups.dtype)).any())

    def group_mask(self, name: str) -> Tensor:
        """Bool[batch, key]: the tokens that carry the label or one below it."""
        if self.groups is None:
            raise DataError(
                f"the batch has no token groups, so none of its tokens is {name!r}; encode it from examples"
            )
        indices = torch.tensor(self.group_index(name), dtype=self.groups.dtype, device=self.groups.device)
        return torch.isin(self.groups, indices)
