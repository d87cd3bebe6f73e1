"""Greedy decoding with a cache of keys and values, with edits in force: on the prompts, on the steps after, or both.

The tokens and logits are those of edited forwards over the whole sequence at every step. For that the cache keeps all
keys, those beyond a sliding window too: an edit may read them (`first`), and no other query sees them.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from .attention import evaluating
from .batching import check_tokens, model_inputs
from .edits.edit import Edit
from .edits.editor import Editor
from .forward import Outputs, editor_for
from .models import Model
from .observer import Observer, run

ANSWER = "answer"
"""The label of generated tokens."""


@dataclass(frozen=True)
class Generation:
    """What a model said."""

    batch: TokenBatch
    """Prompts and responses, padded on the left; behind the end of a response there is padding too."""
    responses: list[tuple[int, ...]]
    """The generated ids of each prompt up to the one that ended it, which is left out."""
    logits: Tensor | None = None
    """[batch, step, vocabulary] that each token was chosen by, where they were asked for; meaningless after an end."""


def generate(
    model: Model,
    batch: TokenBatch,
    edits: Sequence[Edit] = (),
    *,
    max_new_tokens: int = 50,
    stop: Collection[int] | None = None,
    means: Outputs | None = None,
    partner: Outputs | None = None,
    decode_last: bool = False,
    keep_logits: bool = False,
) -> Generation:
    """Greedy responses to the prompts of `batch` with `edits` in force, up to an id in `stop` (by default the model's).

    A `prefill` edit holds in the forward over the prompts, whose last row writes the first token; a `decode` edit in
    the steps after it. With `decode_last` the last token of each prompt is such a step too, as in the released code of
    Wu et al., Retrieval Head. Generated tokens are labelled `answer`. `means` and `partner` are as in `ha.edited`.
    """
    if max_new_tokens < 1:
        raise UserError(f"generate: expected max_new_tokens of 1 or more, came {max_new_tokens}")
    _check(model, batch, edits)
    check_tokens(model, batch)
    whole, partner = left_padded(batch, partner)
    editor = editor_for(model, whole, edits, means=means, partner=partner, coming=(ANSWER,)) if edits else None
    assert whole.input_ids is not None
    steps = _Steps(model, _cache(model), editor)
    ends = torch.tensor(sorted(end_ids(model) if stop is None else stop), dtype=torch.long)
    prompt, done, logits = whole.input_ids.shape[1], torch.zeros(len(whole), dtype=torch.bool), []
    with evaluating(model.network):
        if decode_last and prompt > 1:
            steps.forward(_first_columns(whole, prompt - 1))
        for count in range(max_new_tokens):
            _check_room(model, whole, count)
            steps.decoding = count > 0 or decode_last
            found = steps.forward(whole)
            if keep_logits:
                logits.append(found)
            said = found.argmax(-1).cpu()
            whole = _longer(whole, said, ~done)
            done = done | torch.isin(said, ends)
            if bool(done.all()):
                break
    assert whole.input_ids is not None
    responses = [_until(row, set(ends.tolist())) for row in whole.input_ids[:, prompt:].tolist()]
    return Generation(whole, responses, torch.stack(logits, 1) if logits else None)


def end_ids(model: Model) -> set[int]:
    """Ids that the model's own settings end a response with."""
    given = getattr(model.network.generation_config, "eos_token_id", None)
    return set(given if isinstance(given, list) else [] if given is None else [given])


def left_padded(batch: TokenBatch, partner: Outputs | None = None) -> tuple[TokenBatch, Outputs | None]:
    """The batch, and outputs [batch, head, query, d_head] beside it, with all padding moved before the tokens."""
    assert batch.input_ids is not None
    ids = batch.input_ids
    real = torch.ones_like(ids, dtype=torch.bool) if batch.query_mask is None else batch.query_mask
    order = real.long().argsort(dim=1, stable=True)[:, int((~real).sum(1).min()) :]
    groups = torch.zeros_like(ids, dtype=torch.int8) if batch.groups is None else batch.groups
    names = batch.group_names if ANSWER in batch.group_names else (*batch.group_names, ANSWER)
    moved = TokenBatch(
        example_ids=batch.example_ids,
        input_ids=ids.gather(1, order),
        lengths=real.sum(1),
        groups=groups.gather(1, order),
        group_names=names,
        query_mask=real.gather(1, order),
    )
    if partner is None:
        return moved, None
    return moved, {place: _moved(place, output, order, real) for place, output in partner.items()}


def _moved(place: tuple[str, int], output: Tensor, order: Tensor, real: Tensor) -> Tensor:
    """Outputs [batch, head, query, d_head] with their queries in another order."""
    if (output.shape[0], output.shape[2]) != tuple(real.shape):
        raise UserError(
            f"partner: expected outputs [batch, head, query, d_head] of {list(real.shape)} tokens; "
            f"layer {place[1]} has {list(output.shape)}"
        )
    index = order.to(output.device)[:, None, :, None]
    return output.gather(2, index.expand(-1, output.shape[1], -1, output.shape[3]))


@dataclass
class _Steps:
    """Forwards over what a cache does not hold yet."""

    model: Model
    cache: DynamicCache
    editor: Editor | None
    seen: int = 0
    """Tokens in the cache."""
    decoding: bool = False

    def forward(self, batch: TokenBatch) -> Tensor:
        """Logits [batch, vocabulary] after the last token of a batch, of which the cache holds the beginning."""
        network = self.model.network
        if self.editor is None:
            output = network(**self._unseen(model_inputs(self.model, batch)))
        else:
            editor = replace(self.editor, phase="decode" if self.decoding else "prefill")
            editing = Observer(self.model, batch, frozenset(), editor=editor, silent=True)
            output = run(self.model, batch, editing, change=self._unseen)
        assert batch.input_ids is not None
        self.seen = batch.input_ids.shape[1]
        return output.logits[:, -1].float()

    def _unseen(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a forward over the tokens that the cache lacks; the mask is of all."""
        cut = {name: inputs[name][:, self.seen :] for name in ("input_ids", "position_ids") if name in inputs}
        return {**inputs, **cut, "past_key_values": self.cache, "use_cache": True}


def _cache(model: Model) -> DynamicCache:
    """An empty cache whose layers keep every key."""
    cache = DynamicCache(config=model.network.config)
    cache.layers = [DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer for layer in cache.layers]
    return cache


def _check(model: Model, batch: TokenBatch, edits: Sequence[Edit]) -> None:
    """Refuse what can't be generated from, and edits that a single step can't have."""
    config, accepted = model.network.config, inspect.signature(model.network.forward).parameters
    if getattr(config, "is_encoder_decoder", False) or "past_key_values" not in accepted:
        raise UserError(f"{model.name} ({type(model.network).__name__}) can't generate here: expected a decoder alone, "
                        "with a cache of keys and values")  # fmt: skip
    if batch.input_ids is None or batch.extra:
        came = ", ".join(batch.extra) or "no token ids"
        raise UserError(f"generate: expected prompts of tokens alone; came {came}")
    for one in edits:
        if one.kind_of.prompt_only and one.phase != "prefill":
            raise UserError(f"edit {one.kind} can't hold while decoding: {one.kind_of.prompt_only}; "
                            "give it phase='prefill'")  # fmt: skip


def _check_room(model: Model, batch: TokenBatch, count: int) -> None:
    """Refuse a sequence that is longer than the model's positions."""
    assert batch.query_mask is not None
    longest, limit = int(batch.query_mask.sum(1).max()), model.max_length
    if limit is not None and longest > limit:
        room = limit - longest + count + 1
        advice = f"so ask for at most {room} new ones" if room > 0 else "so use shorter ones"
        raise UserError(
            f"{model.name} has {limit} positions; the longest prompt has {longest - count} tokens, {advice}"
        )


def _first_columns(batch: TokenBatch, count: int) -> TokenBatch:
    assert batch.input_ids is not None and batch.groups is not None and batch.query_mask is not None
    return _with(batch, *(one[:, :count] for one in (batch.input_ids, batch.groups, batch.query_mask)))


def _longer(batch: TokenBatch, ids: Tensor, going: Tensor) -> TokenBatch:
    """The batch with one more token in each row, which is padding where a response has ended."""
    assert batch.input_ids is not None and batch.groups is not None and batch.query_mask is not None
    label = torch.full_like(batch.groups[:, :1], batch.group_names.index(ANSWER))
    said, real = ids.to(batch.input_ids).masked_fill(~going.to(batch.input_ids.device), 0), going.to(batch.query_mask)
    parts = ((batch.input_ids, said[:, None]), (batch.groups, label), (batch.query_mask, real[:, None]))
    return _with(batch, *(torch.cat(pair, dim=1) for pair in parts))


def _with(batch: TokenBatch, ids: Tensor, groups: Tensor, real: Tensor) -> TokenBatch:
    return replace(batch, input_ids=ids, groups=groups, query_mask=real, lengths=real.sum(1))


def _until(ids: Sequence[int], ends: Collection[int]) -> tuple[int, ...]:
    """The ids before the first that is an end."""
    return tuple(ids[: next((index for index, one in enumerate(ids) if one in ends), len(ids))])
