"""Forwards of a model: with its attention statistics, and with some of its heads edited.

Statistics are computed inside each attention call, from its own queries and keys, and handed over or collected as
`AttentionStats`; nothing of a layer outlives its call unless it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..data.errors import UserError
from ..data.tokens import TokenBatch
from ..kernels.stats import AttentionStats, Call
from .batching import all_logits, check_tokens
from .check import check_capture
from .edits.edit import Edit
from .edits.editor import Editor, check_edits
from .models import Model
from .observer import Observer, OnLayer, run
from .residual import check_names
from .rotary import rotary_of

Outputs = Mapping[tuple[str, int], Tensor]
"""(tower, layer) -> mean head outputs [head, d_head], or outputs [batch, head, query, d_head]."""


def observe(
    model: Model,
    batch: TokenBatch,
    needs: Iterable[str],
    *,
    edits: Sequence[Edit] = (),
    means: Outputs | None = None,
    partner: Outputs | None = None,
    on_layer: OnLayer | None = None,
    layers: Callable[[Call], bool] | None = None,
) -> list[AttentionStats]:
    """The statistics `needs` of every attention call of one forward over `batch`, in the order of the calls.

    Statistics of the residual stream come after those of the layer's attention, as a call of their own without heads.
    With `on_layer` each call's statistics are handed over and freed (the list returned is empty). `layers` picks calls.
    In the list, rows of padding are NaN; what `on_layer` is handed has them as computed, and `stats.real_queries`.
    With `edits` the statistics are those of the edited forward.
    """
    wanted = frozenset(needs)
    check_names(wanted)
    editor = editor_for(model, batch, edits, means=means, partner=partner)
    check_tokens(model, batch)
    observer = Observer(model, batch, wanted, on_layer, layers, editor)
    run(model, batch, observer)
    return [stats.without_padding() for stats in observer.collected]


def edited(
    model: Model,
    batch: TokenBatch,
    edits: Sequence[Edit],
    *,
    means: Outputs | None = None,
    partner: Outputs | None = None,
    network: Callable[..., Any] | None = None,
    every_token: bool = True,
    may_lack: Sequence[str] = (),
    kept: Tensor | None = None,
) -> Any:
    """The model's output on `batch` with `edits` in force; without any, its plain output.

    Logits are of every token, or, without `every_token`, of those that the batch names (`logits_to_keep`). `network` is
    called in place of the whole model, such as `model.network.base_model` for hidden states alone. A label that
    no token of the batch has is refused, unless it `may_lack`: then nothing is edited there. To `kept` [batch, 2] are
    added the rows, of heads and queries, that edits left as they were for lack of other keys, and all that they had.
    """
    editor = editor_for(model, batch, edits, means=means, partner=partner, may_lack=may_lack)
    editor = editor and replace(editor, kept=kept)
    check_tokens(model, batch)
    editing = Observer(model, batch, frozenset(), editor=editor, silent=True)
    return run(model, batch, editing, change=all_logits if every_token else dict, network=network)


def head_outputs(model: Model, batch: TokenBatch) -> dict[tuple[str, int], Tensor]:
    """(tower, layer) -> what every head writes, [batch, head, query, d_head], before the output projection."""
    found: dict[tuple[str, int], Tensor] = {}

    def keep(stats: AttentionStats) -> None:
        if stats.call.number == 0 and not stats.call.cross:
            found[stats.call.tower, stats.layer] = stats["output"]

    observe(model, batch, {"output"}, on_layer=keep)
    return found


def mean_outputs(model: Model, batches: Iterable[TokenBatch]) -> dict[tuple[str, int], Tensor]:
    """(tower, layer) -> the mean output of every head over all real tokens of some batches, [head, d_head]."""
    sums: dict[tuple[str, int], Tensor] = {}
    tokens = 0
    for batch in batches:
        assert batch.query_mask is not None
        real = batch.query_mask.to(model.device)
        tokens += int(real.sum())

        def add(stats: AttentionStats, real: Tensor = real) -> None:
            if stats.call.number == 0 and not stats.call.cross:
                place = (stats.call.tower, stats.layer)
                kept = stats["output"].masked_fill(~real[:, None, :, None], 0.0).double().sum((0, 2))
                sums[place] = sums[place] + kept if place in sums else kept

        observe(model, batch, {"output"}, on_layer=add)
    return {place: (total / tokens).float() for place, total in sums.items()}


def editor_for(
    model: Model,
    batch: TokenBatch,
    edits: Sequence[Edit],
    *,
    means: Outputs | None,
    partner: Outputs | None,
    coming: tuple[str, ...] = (),
    may_lack: Sequence[str] = (),
) -> Editor | None:
    """The editor of some edits, or None where there are none; what the model does not have is refused.

    `coming` are labels that no token has yet but will, while generating; without any, no step comes after the prompts.
    """
    edits = [edits] if isinstance(edits, Edit) else edits
    if model.verify and not model.calls:
        check_capture(model, batch)
    if not edits:
        return None
    if model.backend == "materialised":
        raise UserError(f"{model.name} computes its own softmax, which can't be edited; use a model that goes through "
                        "transformers' attention interface")  # fmt: skip
    check_edits(edits, model.calls)
    given = {"means": means, "partner": partner}
    for one in edits:
        if one.phase == "decode" and not coming:
            raise UserError(f"edit {one.spelled}: a forward over whole prompts has no decode step; use ha.generate, or "
                            "another phase")  # fmt: skip
        lacking = one.kind_of.needs
        if lacking in given and not given[lacking]:
            raise UserError(f"edit {one.kind} needs `{lacking}` beside the prompt: {WHERE_FROM[lacking]}")
    return Editor(
        tuple(edits), batch.group_names, means or {}, partner or {}, (*coming, *may_lack), prompts=batch.example_ids,
        generating="answer" in coming,
        rotary=rotary_of(model) if any(one.kind_of.needs == "rotary" for one in edits) else None,
    )  # fmt: skip


WHERE_FROM = {
    "means": "the mean output of every head over other prompts, as ha.mean_outputs(model, batches) gives it",
    "partner": "what every head writes on other prompts of the same lengths, as ha.head_outputs(model, batch) gives it",
}
