"""What goes into a model: texts, Examples or token ids as a `TokenBatch`, and that batch as arguments of a forward."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..data.encode import encode
from ..data.errors import DataError
from ..data.examples import Example
from ..data.tokens import TokenBatch
from .materialised import MAX_KEYS
from .models import Model


def batch(
    model: Model,
    inputs: str | Sequence[str] | Sequence[Example] | Tensor | None = None,
    *,
    attention_mask: Tensor | None = None,
    groups: Tensor | None = None,
    group_names: Sequence[str] = ("rest",),
    bos: str = "default",
    **extra: Tensor,
) -> TokenBatch:
    """A `TokenBatch` from a text, texts, Examples, or token ids [batch, key] with an optional mask and group labels.

    Further tensors (`pixel_values`, `decoder_input_ids`, ...) go to the model as they are.
    """
    if inputs is None or isinstance(inputs, Tensor):
        return _from_ids(inputs, attention_mask, groups, tuple(group_names), extra)
    inputs = [inputs] if isinstance(inputs, str) else inputs
    examples = [
        item if isinstance(item, Example) else Example(id=str(index), text=item) for index, item in enumerate(inputs)
    ]
    made = encode(examples, model.tokenizer, bos=bos, max_length=model.max_length)
    return replace(made, extra={**made.extra, **extra})


def _from_ids(
    ids: Tensor | None, mask: Tensor | None, groups: Tensor | None, names: tuple[str, ...], extra: dict[str, Tensor]
) -> TokenBatch:
    if ids is None:
        count = next(iter(extra.values())).shape[0] if extra else 0
        return TokenBatch(example_ids=tuple(map(str, range(count))), extra=extra)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if real.shape != ids.shape:
        raise ValueError(
            f"attention_mask: expected the shape of the token ids {list(ids.shape)}, got {list(real.shape)}"
        )
    if groups is not None and bool(((groups < 0) | (groups >= len(names))).any()):
        raise ValueError(
            f"groups: expected labels 0 to {len(names) - 1}, an index into {list(names)}; "
            f"got {int(groups.min())} to {int(groups.max())}"
        )
    return TokenBatch(
        example_ids=tuple(map(str, range(ids.shape[0]))),
        input_ids=ids,
        lengths=real.sum(1),
        groups=torch.zeros_like(ids, dtype=torch.int8) if groups is None else groups.to(torch.int8),
        group_names=names,
        query_mask=real,
        extra=extra,
    )


def check_tokens(model: Model, batch: TokenBatch) -> None:
    """Refuse ids that the model has no embedding for, and prompts too long for a model whose maps are held."""
    if batch.input_ids is None:
        return
    size = _embeddings(model)
    foreign = (batch.input_ids < 0) | (batch.input_ids >= (size or 0))
    if size is not None and bool(foreign.any()):
        row, column = foreign.nonzero()[0].tolist()
        token = int(batch.input_ids[row, column])
        raise DataError(
            f"example {batch.example_ids[row]!r} has token id {token}; {model.name} knows 0 to {size - 1}. "
            "Use the tokenizer and the ids that belong to this model"
        )
    length = batch.input_ids.shape[1]
    if model.backend == "materialised" and length > MAX_KEYS:
        raise DataError(
            f"{model.name} is outside the attention interface, so its n x n maps are held: expected at most {MAX_KEYS} "
            f"tokens, got {length}; use shorter prompts"
        )


def delimiters_among(ids: Tensor, tokenizer: Any) -> Tensor | None:
    """bool [batch, key], True for tokens without letter or digit that are not special; None without a tokenizer."""
    if tokenizer is None:
        return None
    known, place = ids.unique(return_inverse=True)
    special = set(tokenizer.all_special_ids)
    marks = [one not in special and _delimits(tokenizer.decode([one])) for one in known.tolist()]
    return torch.tensor(marks, device=ids.device)[place]


def _delimits(text: str) -> bool:
    """Whether a token's text is punctuation or blank; a piece of a character is neither."""
    return "\ufffd" not in text and not any(letter.isalnum() for letter in text)


def model_inputs(model: Model, batch: TokenBatch, network: Any = None) -> dict[str, Any]:
    """Keyword arguments of the forward of the model, or its part: tokens, mask and positions for padding, no cache."""
    accepted = inspect.signature((network or model.network).forward).parameters
    inputs: dict[str, Any] = {name: value.to(model.device) for name, value in batch.extra.items()}
    if batch.input_ids is not None:
        inputs["input_ids"] = batch.input_ids.to(model.device)
    real = batch.query_mask
    if real is not None and not bool(real.all()):
        inputs["attention_mask"] = real.long().to(model.device)
        left = not bool(real[:, 0].all())
        if left and "position_ids" in accepted and not model.network.config.is_encoder_decoder:
            positions = (real.long().cumsum(1) - 1).clamp(min=0) + model.first_position
            inputs.setdefault("position_ids", positions.to(model.device))
    options = {"use_cache": False, "return_dict": True, "logits_to_keep": 1 if batch.targets is None else None}
    options = {name: value for name, value in options.items() if name in accepted and value is not None}
    inputs = options | inputs
    return inputs


def all_logits(inputs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward that gives the logits of every token, whoever reads them."""
    return {name: value for name, value in inputs.items() if name != "logits_to_keep"}


def _embeddings(model: Model) -> int | None:
    """How many token ids the model has an embedding for; None where it does not say."""
    try:
        weight = getattr(model.network.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return weight.shape[0] if weight is not None and weight.dim() == 2 else None
