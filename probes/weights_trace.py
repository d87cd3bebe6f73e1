"""One forward over prompts of one token, with what goes through norms, attention and unembedding kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..data.errors import UserError
from ..kernels.inputs import AttentionInputs
from ..kernels.sdpa import attention_output
from .attention import capture
from .batching import batch, model_inputs
from .bridge import Stored
from .materialised import MaterialisedCall, capture_materialised
from .models import Model
from .sample import sample_batch


@dataclass
class Trace:
    """What went in and out of the watched modules in one forward, and the attention calls."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    calls: dict[str, tuple[AttentionInputs, Tensor]] = field(default_factory=dict)
    """Module -> its call and its output [batch, head, query, d_head]."""
    logits: dict[str, Tensor] = field(default_factory=dict)
    """Module with a softmax of its own -> the logit of each prompt's token for itself, [prompt, head]."""

    def moved(self, name: str, *, came: bool = False) -> Tensor:
        """The difference between the first two prompts of what a module gave (or took), float32 [d_model]."""
        tensor = (self.inputs if came else self.outputs)[name].float()
        return tensor[0, 0] - tensor[1, 0]


def trace_of(model: Model, stored: Stored, tokens: Tensor) -> Trace:
    """One forward over prompts of one token with everything watched that the check needs."""
    trace, names = Trace(), {stored.final_norm, stored.unembedding}
    for place in stored.places:
        names |= {place.norm, place.attention, *filter(None, [place.post_norm])}
    attention = {id(model.network.get_submodule(place.attention)): place.attention for place in stored.places}

    def watch(module: nn.Module, inputs: AttentionInputs) -> Tensor:
        output, _ = attention_output(inputs)
        if id(module) in attention:
            trace.calls[attention[id(module)]] = inputs, output
        return output

    def watch_softmax(module: nn.Module, seen: MaterialisedCall | AttentionInputs) -> None:
        if isinstance(seen, AttentionInputs):
            watch(module, seen)
        elif id(module) in attention:
            trace.logits[attention[id(module)]] = seen.logits[:, :, 0, 0].float()

    given = model_inputs(model, batch(model, tokens))
    given.pop("logits_to_keep", None)
    with _hooked(model.network, names, trace):
        if model.backend == "interface":
            with capture(model.network, watch):
                model.network(**given)
        else:
            with capture_materialised(model.network, watch_softmax):
                model.network(**given)
    return trace


@contextmanager
def _hooked(network: nn.Module, names: set[str], trace: Trace) -> Iterator[None]:
    """Note the first tensor in and out of each module."""

    def note(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            came = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values())))
            trace.inputs[name] = came
            trace.outputs[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [network.get_submodule(name).register_forward_hook(note(name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def one_token_prompts(model: Model) -> Tensor:
    """Eight different ordinary tokens (or as many as there are), each a prompt of its own, [prompt, 1]."""
    sample = sample_batch(model)
    if sample is None or sample.input_ids is None or sample.extra:
        raise UserError(f"{model.name}: expected a model that takes token ids alone; its weights are not read")
    return sample.input_ids.flatten().unique()[:8, None].cpu()
