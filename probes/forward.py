"""One forward of a model with its attention statistics: `batch` makes the input, `observe` runs it.

Statistics are computed inside each attention call, from its own queries and keys, and handed over or collected as
`AttentionStats`; nothing of a layer outlives its call unless it was asked for.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..data.encode import encode
from ..data.errors import DataError
from ..data.errors import UserError
from ..data.examples import Example
from ..data.tokens import TokenBatch
from ..kernels.dispatch import attention_stats
from ..kernels.inputs import AttentionInputs
from ..kernels.reference import statistics_of_weights
from ..kernels.stats import AttentionStats, Call, parameters, split_name
from .attention import capture, sdpa_suffices
from .materialised import MAX_KEYS, MaterialisedCall, capture_materialised
from .models import Model
from .targets import find_target

TOKEN_FIELDS = frozenset({"duplicate_mass", "induction_mass", "duplicate_keys", "induction_keys"})
OnLayer = Callable[[AttentionStats], None]


def batch(
    model: Model,
    inputs: Sequence[str] | Sequence[Example] | Tensor | None = None,
    *,
    attention_mask: Tensor | None = None,
    groups: Tensor | None = None,
    group_names: Sequence[str] = ("rest",),
    bos: str = "default",
    **extra: Tensor,
) -> TokenBatch:
    """A `TokenBatch` from texts, Examples, or token ids [batch, key] with an optional mask and group labels.

    Further tensors (`pixel_values`, `decoder_input_ids`, ...) go to the model as they are.
    """
    if inputs is None or isinstance(inputs, Tensor):
        return _from_ids(inputs, attention_mask, groups, tuple(group_names), extra)
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
    return TokenBatch(
        example_ids=tuple(map(str, range(ids.shape[0]))),
        input_ids=ids,
        lengths=real.sum(1),
        groups=torch.zeros_like(ids, dtype=torch.int8) if groups is None else groups.to(torch.int8),
        group_names=names,
        query_mask=real,
        extra=extra,
    )


def observe(
    model: Model,
    batch: TokenBatch,
    needs: Iterable[str],
    *,
    edits: Sequence[Any] = (),
    on_layer: OnLayer | None = None,
    layers: Callable[[Call], bool] | None = None,
) -> list[AttentionStats]:
    """The statistics `needs` of every attention call of one forward over `batch`, in the order of the calls.

    With `on_layer` each call's statistics are handed over and freed (the list returned is empty). `layers` picks calls.
    """
    if edits:
        raise NotImplementedError("edits are not built yet; pass edits=()")
    wanted = frozenset(needs)
    for name in wanted:
        split_name(name)
    if model.verify and not model.calls:
        from .check import check_capture

        check_capture(model, batch)
    check_tokens(model, batch)
    observer = _Observer(model, batch, wanted, on_layer, layers)
    run(model, batch, observer)
    return observer.collected


def run(model: Model, batch: TokenBatch, observer: _Observer) -> Any:
    """One forward of the model with the observer watching; returns the model's output."""
    inputs = model_inputs(model, batch)
    if model.backend == "interface":
        with capture(model.network, observer.watch):
            return model.network(**inputs)
    with capture_materialised(model.network, observer.watch_materialised):
        return model.network(**inputs)


def check_tokens(model: Model, batch: TokenBatch) -> None:
    """Refuse ids that the model has no embedding for, and prompts too long for a model whose maps are held."""
    if batch.input_ids is None:
        return
    size = _embeddings(model)
    for name, ids in zip(batch.example_ids, batch.input_ids, strict=True):
        low, high = int(ids.min()), int(ids.max())
        if size is not None and (low < 0 or high >= size):
            raise DataError(
                f"example {name!r} has token id {low if low < 0 else high}; {model.name} knows 0 to {size - 1}. "
                "Use the tokenizer and the ids that belong to this model"
            )
    length = batch.input_ids.shape[1]
    if model.backend == "materialised" and length > MAX_KEYS:
        raise DataError(
            f"{model.name} is outside the attention interface, so its n x n maps are held: expected at most {MAX_KEYS} "
            f"tokens, got {length}; use shorter prompts"
        )


def model_inputs(model: Model, batch: TokenBatch) -> dict[str, Any]:
    """Keyword arguments of the model's forward: tokens, mask and positions where there is padding, no cache."""
    accepted = inspect.signature(model.network.forward).parameters
    inputs: dict[str, Any] = {name: value.to(model.device) for name, value in batch.extra.items()}
    if batch.input_ids is not None:
        inputs["input_ids"] = batch.input_ids.to(model.device)
    real = batch.query_mask
    if real is not None and not bool(real.all()):
        inputs["attention_mask"] = real.long().to(model.device)
        left = not bool(real[:, 0].all())
        if left and "position_ids" in accepted and not model.network.config.is_encoder_decoder:
            inputs.setdefault("position_ids", (real.long().cumsum(1) - 1).clamp(min=0).to(model.device))
    options = {"use_cache": False, "return_dict": True, "logits_to_keep": 1 if batch.targets is None else None}
    inputs.update({name: value for name, value in options.items() if name in accepted and value is not None})
    return inputs


def _embeddings(model: Model) -> int | None:
    """How many token ids the model has an embedding for; None where it does not say."""
    try:
        weight = getattr(model.network.get_input_embeddings(), "weight", None)
    except NotImplementedError:
        return None
    return weight.shape[0] if weight is not None and weight.dim() == 2 else None


@dataclass
class _Observer:
    """Turns attention calls into `AttentionStats` with the labels of a batch."""

    model: Model
    batch: TokenBatch
    needs: frozenset[str]
    on_layer: OnLayer | None = None
    layers: Callable[[Call], bool] | None = None
    collected: list[AttentionStats] = field(default_factory=list)
    calls: Counter[int] = field(default_factory=Counter)

    def watch(self, module: nn.Module, inputs: AttentionInputs) -> Tensor | None:
        """Statistics of one call; also its output where that takes a pass over the tiles anyway."""
        call = self._name(module, inputs)
        if self.layers is not None and not self.layers(call):
            return None
        labelled = self._label(call, inputs)
        needs = self._available(call, labelled)
        also_output = frozenset() if sdpa_suffices(inputs) else frozenset({"output"})
        values = attention_stats(labelled, needs | also_output)
        output = values.get("output") if also_output else None
        self._deliver(call, labelled, {name: values[name] for name in needs | {"visible_keys"}})
        return output

    def watch_materialised(self, module: nn.Module, seen: MaterialisedCall | AttentionInputs) -> None:
        """Statistics of a call that a model outside the interface made itself."""
        if isinstance(seen, AttentionInputs):
            self.watch(module, seen)
            return
        inputs = seen.inputs()
        ids = self.batch.input_ids
        if ids is not None and (inputs.shape[0], *inputs.shape[2:]) != (*ids.shape, ids.shape[1]):
            raise UserError(
                f"{self.model.name}: the softmax of {type(module).__name__} is over {list(seen.weights.shape)}, not "
                f"[batch, head, query, key] of {list(ids.shape)} tokens; its heads can't be measured"
            )
        call = self._name(module, inputs)
        if self.layers is not None and not self.layers(call):
            return
        labelled = self._label(call, inputs)
        needs = self._available(call, labelled)
        missing = sorted(name for name in needs if name in ("output", "value_weighted_mass"))
        if missing:
            raise NotImplementedError(
                f"{self.model.name} computes its own softmax, which shows no values: {', '.join(missing)} can't be had"
            )
        masked = seen.logits.double().masked_fill(~seen.visible, -torch.inf)
        values = statistics_of_weights(
            labelled, needs, seen.weights.double(), masked, masked.logsumexp(-1), seen.visible
        )
        self._deliver(call, labelled, {name: _single(value) for name, value in values.items()})

    def _name(self, module: nn.Module, inputs: AttentionInputs) -> Call:
        site = self.model.sites.site(module)
        number = self.calls[id(module)]
        self.calls[id(module)] += 1
        view = inputs.visibility
        return Call(
            tower=site.tower,
            layer=site.layer + number if site.shared else site.layer,
            module=site.module,
            number=0 if site.shared else number,
            causal=view.causal,
            cross=site.tower.startswith("cross"),
            window=None if view.before is None else view.before + 1,
            heads=inputs.shape[1],
            kv_heads=inputs.key.shape[1],
        )

    def _label(self, call: Call, inputs: AttentionInputs) -> AttentionInputs:
        """The call with groups, tokens, real queries and targets, as far as the batch knows them for this tower."""
        query_tokens, query_real, query_groups = self._side(call, "query", inputs.shape[2], inputs.shape[0])
        key_tokens, key_real, key_groups = self._side(call, "key", inputs.shape[3], inputs.shape[0])
        view = inputs.visibility
        if query_real is None and view.query_mask is not None:
            query_real = view.query_mask
        device = inputs.query.device
        real = torch.ones(inputs.shape[0], inputs.shape[3], dtype=torch.bool) if key_real is None else key_real
        targets = {}
        for name in self.needs:
            base, arguments = split_name(name)
            if base == "weight_at" and (not call.cross or arguments[0] == "first"):
                index = find_target(arguments[0])(real.to(device))
                targets[arguments[0]] = index[:, :1].expand(-1, inputs.shape[2]) if call.cross else index
        return replace(
            inputs,
            visibility=replace(view, query_mask=None if query_real is None else query_real.to(device)),
            key_groups=None if key_groups is None else key_groups.to(device),
            query_groups=None if query_groups is None else query_groups.to(device),
            group_count=len(self.batch.group_names),
            query_tokens=None if query_tokens is None else query_tokens.to(device),
            key_tokens=None if key_tokens is None else key_tokens.to(device),
            targets=targets,
        )

    def _side(
        self, call: Call, side: str, length: int, count: int
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """(tokens, real, groups) of the queries or keys of a call; None where the batch does not know them."""
        known = self.batch
        if call.tower.startswith("decoder") or (call.cross and side == "query"):
            tokens = known.extra.get("decoder_input_ids")
            mask = known.extra.get("decoder_attention_mask")
            return tokens, None if mask is None else mask.bool(), None
        ids = known.input_ids
        if ids is None or call.tower.startswith(("vision", "audio")) or ids.shape != (count, length):
            return None, None, None
        return ids, known.query_mask, known.groups

    def _available(self, call: Call, inputs: AttentionInputs) -> frozenset[str]:
        """The asked-for statistics that exist for this call: token fields need tokens, cross-attention has no distance."""
        gone = set() if inputs.query_tokens is not None and inputs.key_tokens is not None else set(TOKEN_FIELDS)
        targets = {f"weight_at:{name}" for name in inputs.targets}
        gone |= {name for name in self.needs if name.startswith("weight_at:")} - targets
        if call.cross:
            gone |= TOKEN_FIELDS | {name for name in self.needs if "distance" in name or "window_mass" in name}
            gone |= {name for name, _ in parameters(self.needs, "future_average")}
        return self.needs - gone

    def _deliver(self, call: Call, inputs: AttentionInputs, values: dict[str, Tensor]) -> None:
        stats = AttentionStats(
            values,
            call,
            self.batch.group_names,
            inputs.visibility.query_mask,
            inputs.query_groups,
            inputs.key_groups,
        )
        if self.on_layer is not None:
            self.on_layer(stats)
        else:
            self.collected.append(stats)


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
