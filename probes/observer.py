"""What watches a forward: each attention call gets a name, the labels of the batch, and its statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from ..kernels.dispatch import attention_stats
from ..kernels.inputs import AttentionInputs
from ..kernels.reference import statistics_of_weights
from ..kernels.sdpa import attention_output, sdpa_suffices
from ..kernels.stats import AttentionStats, Call, parameters, split_name
from .attention import capture
from .batching import delimiters_among, model_inputs
from .edits.edit import Edit
from .edits.editor import Editor
from .materialised import MaterialisedCall, capture_materialised
from .models import Model
from .residual import RESIDUAL, residual_stats, watch_blocks
from .targets import targets_of

TOKEN_FIELDS = frozenset({"duplicate_mass", "induction_mass", "duplicate_keys", "induction_keys"})
OUTPUT_FIELDS = frozenset({"output", "output_norm"})
VALUE_FIELDS = OUTPUT_FIELDS | {"value_weighted_mass", "value_norm"}
UNSHOWN = VALUE_FIELDS | {"tail_estimate"}
"""Fields of values, or of queries and keys apart, which a softmax does not show."""
OnLayer = Callable[[AttentionStats], None]
NO_TOKEN = -1
"""The token of padding: it equals no other, so the first real token follows nothing."""


@dataclass
class Observer:
    """Turns attention calls into `AttentionStats` with the labels of a batch."""

    model: Model
    batch: TokenBatch
    needs: frozenset[str]
    on_layer: OnLayer | None = None
    layers: Callable[[Call], bool] | None = None
    editor: Editor | None = None
    silent: bool = False
    """Nothing is measured: the observer only edits."""
    collected: list[AttentionStats] = field(default_factory=list)
    calls: Counter[int] = field(default_factory=Counter)
    blocks: dict[str, Call] = field(default_factory=dict)
    """The latest self-attention call of each block."""
    tails: dict[str, tuple[int, dict[str, Tensor]]] = field(default_factory=dict)
    """The layer and the tail weights, averaged over heads, of each tower's latest call."""

    def __post_init__(self) -> None:
        self.of_stream = self.needs & RESIDUAL.keys()
        self.needs = self.needs - self.of_stream
        self.of_attention = not self.silent and (bool(self.needs) or not self.of_stream)

    def watch(self, module: nn.Module, inputs: AttentionInputs) -> Tensor | None:
        """Statistics of one call, and its output; None where nobody asked for this call."""
        call = self._name(module, inputs)
        asked = self.of_attention and self._asked(call)
        edits = () if self.editor is None else self.editor.at(call)
        if not asked and not edits:
            return None
        labelled = self._label(call, inputs)
        if edits:
            return self._edited(call, labelled, edits, asked)
        needs = self._available(call, labelled)
        if sdpa_suffices(inputs):
            output, logsumexp = attention_output(inputs)
            values = attention_stats(labelled, needs - OUTPUT_FIELDS, logsumexp=logsumexp)
            values |= _of_output(needs, output)
        else:
            values = attention_stats(labelled, needs | {"output"})
            output = values["output"]
        self._deliver(call, labelled, {name: values[name] for name in needs | {"visible_keys"}})
        return output

    def _edited(self, call: Call, inputs: AttentionInputs, edits: Sequence[Edit], asked: bool) -> Tensor:
        """The output of an edited call, and the statistics of its weights where they are asked for."""
        assert self.editor is not None
        needs = self._available(call, inputs)

        def statistics(heads: AttentionInputs, output: Tensor) -> dict[str, Tensor]:
            return attention_stats(heads, needs - OUTPUT_FIELDS) | _of_output(needs, output)

        output, values = self.editor.apply(call, inputs, edits, statistics if asked else None)
        if asked:
            self._deliver(call, inputs, {name: values[name] for name in needs | {"visible_keys"}})
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
        if not self.of_attention or not self._asked(call):
            return
        labelled = self._label(call, inputs)
        needs = self._available(call, labelled)
        missing = unshown(needs)
        if missing:
            raise NotImplementedError(
                f"{self.model.name} computes its own softmax, which shows no values, queries or keys: "
                f"{', '.join(missing)} can't be had"
            )
        masked = seen.logits.double().masked_fill(~seen.visible, -torch.inf)
        values = statistics_of_weights(
            labelled, needs, seen.weights.double(), masked, masked.logsumexp(-1), seen.visible
        )
        self._deliver(call, labelled, {name: _single(value) for name, value in values.items()})

    def watch_block(self, name: str, hidden: Tensor) -> None:
        """Statistics of the residual stream [batch, token, d_model] that a block leaves; others are no layers."""
        call = self.blocks.pop(name, None)
        if call is None or not self._asked(call):
            return
        _, real, groups = _on(hidden.device, self._side(call, "query", *reversed(hidden.shape[:2])))
        values = residual_stats(hidden, self.of_stream)
        whole = replace(call, module=name, heads=0, kv_heads=0)
        self._hand_over(AttentionStats(values, whole, self.batch.group_names, real, groups, groups))

    def _name(self, module: nn.Module, inputs: AttentionInputs) -> Call:
        site = self.model.sites.site(module)
        number = self.calls[id(module)]
        self.calls[id(module)] += 1
        view = inputs.visibility
        call = Call(
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
        if not call.cross:
            self.blocks[site.block] = call
        return call

    def _asked(self, call: Call) -> bool:
        return self.layers is None or self.layers(call)

    def _label(self, call: Call, inputs: AttentionInputs) -> AttentionInputs:
        """The call with groups, tokens, real queries and targets, as far as the batch knows them for this tower."""
        device, (batch, _, queries, keys) = inputs.query.device, inputs.shape
        of_keys = self._side(call, "key", keys, batch)
        if queries < keys and not call.cross:  # after a cache: the queries are the last of the keys
            of_queries = tuple(None if one is None else one[:, -queries:] for one in of_keys)
        else:
            of_queries = self._side(call, "query", queries, batch)
        query_tokens, query_real, query_groups = _on(device, of_queries)
        key_tokens, key_real, key_groups = _on(device, of_keys)
        view = inputs.visibility
        if query_real is None and view.query_mask is not None:
            query_real = view.query_mask.to(device)
        return replace(
            inputs,
            visibility=replace(view, query_mask=query_real),
            key_groups=key_groups,
            query_groups=query_groups,
            group_count=len(self.batch.group_names),
            query_tokens=query_tokens,
            key_tokens=key_tokens,
            targets=self._targets(call, inputs, key_real),
        )

    def _side(self, call: Call, side: str, length: int, count: int) -> tuple[Tensor | None, ...]:
        """(tokens, real, groups) of the queries or keys of a call; None where the batch does not know them."""
        known = self.batch
        if call.tower.startswith("decoder") or (call.cross and side == "query"):
            mask = known.extra.get("decoder_attention_mask")
            return known.extra.get("decoder_input_ids"), None if mask is None else mask.bool(), None
        ids = known.input_ids
        if ids is None or call.tower.startswith(("vision", "audio")) or ids.shape != (count, length):
            return None, None, None
        real = known.query_mask
        return (ids if real is None else ids.masked_fill(~real, NO_TOKEN)), real, known.groups

    def _targets(self, call: Call, inputs: AttentionInputs, real: Tensor | None) -> dict[str, Tensor]:
        """The named keys that are asked for; a query of another sequence than the keys has the first one alone."""
        batch, _, queries, keys = inputs.shape
        if real is None:
            real = torch.ones(batch, keys, dtype=torch.bool, device=inputs.query.device)
        found = targets_of(self.needs, real)
        if not call.cross:
            return found
        return {name: index[:, :1].expand(-1, queries) for name, index in found.items() if name == "first"}

    def _available(self, call: Call, inputs: AttentionInputs) -> frozenset[str]:
        """The asked-for statistics this call has: token fields need tokens, cross-attention has no distance."""
        gone = set() if inputs.query_tokens is not None and inputs.key_tokens is not None else set(TOKEN_FIELDS)
        targets = {f"weight_at:{name}" for name in inputs.targets}
        gone |= {name for name in self.needs if name.startswith("weight_at:")} - targets
        if call.cross:
            gone |= TOKEN_FIELDS | {name for name in self.needs if "distance" in name or "window_mass" in name}
            gone |= {name for name, _ in parameters(self.needs, "future_average")}
        return self.needs - gone

    def _deliver(self, call: Call, inputs: AttentionInputs, values: dict[str, Tensor]) -> None:
        delimiters = None if inputs.key_tokens is None else self.delimiters
        labels = (inputs.query_groups, inputs.key_groups, inputs.key_tokens, delimiters)
        names, real = self.batch.group_names, inputs.visibility.query_mask
        layer, before = self.tails.get(call.tower, (None, {}))
        before = before if layer == call.layer - 1 else None
        self._hand_over(AttentionStats(values, call, names, real, *labels, before))
        self.tails[call.tower] = (call.layer, mean_tails(values))

    @cached_property
    def delimiters(self) -> Tensor | None:
        """bool [batch, key], True for tokens without letter or digit; None without a tokenizer."""
        ids = self.batch.input_ids
        return None if ids is None else delimiters_among(ids, self.model.tokenizer)

    def _hand_over(self, stats: AttentionStats) -> None:
        if self.on_layer is not None:
            self.on_layer(stats)
        else:
            self.collected.append(stats)


def mean_tails(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tail weights among some statistics, [batch, 1, tail query, key]: the mean over heads."""
    return {name: value.mean(1, keepdim=True) for name, value in values.items() if name.startswith("tail_weights")}


def unshown(needs: Iterable[str]) -> list[str]:
    """What of `needs` can't be had from the logits and weights of a softmax alone."""
    return sorted(name for name in needs if name not in RESIDUAL and split_name(name)[0] in UNSHOWN)


def _on(device: torch.device, tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    return [None if one is None else one.to(device) for one in tensors]


def _of_output(needs: frozenset[str], output: Tensor) -> dict[str, Tensor]:
    """What is a function of the head outputs [batch, head, query, d_head] that the model's own attention has made."""
    made = {"output": lambda: output.float(), "output_norm": lambda: output.float().norm(dim=-1)}
    return {name: make() for name, make in made.items() if name in needs}


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def run(
    model: Model,
    batch: TokenBatch,
    observer: Observer,
    *,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    network: Callable[..., Any] | None = None,
) -> Any:
    """One forward of the model (or of its part `network`) with the observer watching; returns its output."""
    network = network or model.network
    inputs = change(model_inputs(model, batch, network))
    with ExitStack() as stack:
        if observer.of_stream:
            stack.enter_context(watch_blocks(model.network, observer.watch_block))
        if observer.editor is not None and observer.editor.rotary is not None:
            stack.enter_context(observer.editor.rotary.watching(model.network))
        if model.backend == "interface":
            stack.enter_context(capture(model.network, observer.watch))
        else:
            stack.enter_context(capture_materialised(model.network, observer.watch_materialised))
        return network(**inputs)
