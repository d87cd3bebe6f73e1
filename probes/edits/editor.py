"""Edits at work inside a forward: a call is split into heads whose weights are edited alike, and put together again.

Heads that no edit names go through the model's own attention; what heads write is edited after it. Where prompts have
heads of their own, a head is computed with each set of edits that some prompt has for it, and each prompt takes its
part. Statistics are those of the edited weights, except for edits of the output, which leave the weights as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ...data.errors import UserError
from ...kernels.inputs import AttentionInputs
from ...kernels.sdpa import attention_output
from ...kernels.stats import Call
from ..rotary import Rotary
from .edit import Edit
from .place import Place, Place_, picked

Statistics = Callable[[AttentionInputs, Tensor], dict[str, Tensor]]
"""Statistics of some heads from their call and their output, each [batch, head, ...]."""


@dataclass(frozen=True)
class Editor:
    """Some edits of one model, ready for its attention calls."""

    edits: tuple[Edit, ...]
    group_names: tuple[str, ...] = ("rest",)
    means: Mapping[Place_, Tensor] = field(default_factory=dict)
    partner: Mapping[Place_, Tensor] = field(default_factory=dict)
    coming: tuple[str, ...] = ()
    """Labels that no token has yet, but will."""
    generating: bool = False
    """Whether answers are being generated: the token after the last one will be of the answer."""
    phase: str = "prefill"
    """What the forward at hand is: `prefill` (whole prompts), or `decode` (the tokens after a cache)."""
    prompts: tuple[str, ...] = ()
    """The ids of the prompts."""
    kept: Tensor | None = None
    """[batch, 2], to which rows (of heads and queries) are added: those an edit kept as they were, and all it had."""
    rotary: Rotary | None = None
    """The positions of this sequence, where an edit turns queries by them."""

    def at(self, call: Call) -> tuple[Edit, ...]:
        """The edits that hold for some head of this call."""
        return tuple(
            one
            for one in self.edits
            if one.tower == call.tower and one.phase in ("both", self.phase) and not call.cross
            and (one.places is None or call.layer in one.places)
        )  # fmt: skip

    def apply(
        self, call: Call, inputs: AttentionInputs, edits: Sequence[Edit], statistics: Statistics | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The output [batch, head, query, d_head] of the edited call, and its statistics where they are asked for."""
        assert inputs.value is not None
        heads, width = inputs.shape[1], inputs.value.shape[-1]
        of_weights = sorted(
            (one for one in edits if one.kind_of.level == "weights"), key=lambda one: one.kind == "block"
        )
        of_output = [one for one in edits if one.kind_of.level == "output"]
        found: dict[str, Tensor] = {}
        whole: Tensor | None = None
        for chosen, mine, rows in self._alike(call, of_weights, inputs, range(heads)):
            edited = picked(inputs, chosen) if mine or len(chosen) < heads else inputs
            for one in mine:
                self._count(call, edited, one, chosen, rows)
                edited = one.kind_of.apply(edited, one, self._place(call, chosen))
            output, _ = attention_output(edited)
            output = self._written(call, edited, output[..., :width], of_output, chosen)
            whole = _placed(whole, output, heads, chosen, rows)
            for name, value in ({} if statistics is None else statistics(edited, output)).items():
                found[name] = _placed(found.get(name), value, heads, chosen, rows)
        assert whole is not None
        return whole, found

    def _written(
        self, call: Call, inputs: AttentionInputs, output: Tensor, edits: Sequence[Edit], heads: tuple[int, ...]
    ) -> Tensor:
        """The output [batch, head, query, d_head] of these heads after the edits of what they write."""
        for chosen, mine, rows in self._alike(call, edits, inputs, heads):
            if mine:
                at = tuple(heads.index(head) for head in chosen)
                piece, made = picked(inputs, at), output[:, list(at)]
                for one in mine:
                    self._count(call, piece, one, chosen, rows)
                    made = one.kind_of.apply(made, piece, one, self._place(call, chosen))[..., : output.shape[-1]]
                output = _placed(output, made, len(heads), at, rows)
        return output

    def _count(
        self, call: Call, inputs: AttentionInputs, edit: Edit, heads: tuple[int, ...], rows: Tensor | None
    ) -> None:
        """Rows that an edit of these heads keeps as they are, of those that it has in the prompts `rows`."""
        if self.kept is None or edit.kind_of.keeps is None:
            return
        real = inputs.real_queries()
        left = edit.kind_of.keeps(inputs, edit, self._place(call, heads)) & real
        times = torch.full((len(real),), len(heads)) if rows is None else rows.sum(1)
        self.kept.add_(torch.stack([left.sum(1), real.sum(1)], dim=1).cpu() * times[:, None])

    def _place(self, call: Call, heads: tuple[int, ...]) -> Place:
        turn = None if self.rotary is None else partial(self.rotary.turned, call.module)
        return Place(call, heads, self.group_names, self.means, self.partner, self.coming, self.generating, turn)

    def _alike(
        self, call: Call, edits: Sequence[Edit], inputs: AttentionInputs, heads: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], tuple[Edit, ...], Tensor | None]]:
        """Heads with the edits that hold for them, and for which prompts, bool [batch, head]; None: for all."""
        batch = inputs.shape[0]
        differ = any(one.by_prompt is not None for one in edits)
        prompts = self.prompts if differ else ("",)
        if differ and len(prompts) != batch:
            raise UserError(f"edit by prompt: expected a row for each of {len(prompts)} prompts in {call.module}; came "
                            f"{batch}; name heads for all prompts instead")  # fmt: skip
        sets: dict[tuple[int, ...], dict[int, list[bool]]] = {}
        for head in heads:
            mine = [tuple(i for i, one in enumerate(edits) if one.holds(call.layer, head, name)) for name in prompts]
            for these in dict.fromkeys(mine):
                sets.setdefault(these, {})[head] = [other == these for other in mine]
        for these, rows in sets.items():
            yield (
                tuple(rows),
                tuple(edits[index] for index in these),
                torch.tensor(list(rows.values())).T if differ else None,
            )


def _placed(whole: Tensor | None, piece: Tensor, heads: int, chosen: tuple[int, ...], rows: Tensor | None) -> Tensor:
    """What is known of all heads, [batch, head, ...], with a piece of some heads put in at `rows` [batch, head]."""
    if whole is None:
        whole = piece.new_zeros(piece.shape[0], heads, *piece.shape[2:])
    if rows is not None:
        there = rows.to(piece.device).reshape(*rows.shape, *(1,) * (piece.dim() - 2))
        piece = torch.where(there, piece, whole[:, list(chosen)])
    whole[:, list(chosen)] = piece.to(whole.dtype)
    return whole


def check_edits(edits: Sequence[Edit], calls: Sequence[Call]) -> None:
    """Refuse heads that the model does not have; of a model loaded without a check no calls are known."""
    if not calls:
        return
    layers = {(call.tower, call.layer): call.heads for call in calls if not call.cross}
    for one in edits:
        if not any(tower == one.tower for tower, _ in layers):
            towers = ", ".join(dict.fromkeys(tower for tower, _ in layers))
            raise UserError(f"edit {one.spelled}: the model has no tower {one.tower!r}; it has {towers}")
        count = max(layer for tower, layer in layers if tower == one.tower) + 1
        for layer, heads in (one.places or {}).items():
            known = layers.get((one.tower, layer))
            if known is None or max(heads) >= known:
                of = f"layer {layer} has {known} heads" if known else f"there are {count} layers"
                raise UserError(f"edit {one.kind}: there is no head L{layer}H{max(heads)}; {of}, counted from 0")
