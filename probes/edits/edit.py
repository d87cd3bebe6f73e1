"""An edit: one change of what some heads attend to or write, as plain data.

A reading says what a head does; an edit of the same forward shows whether it matters. Edits are applied in the order
given: first those of the weights, then those of the output. What is blocked stays so: of the weights, `block` is last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ...data.errors import UserError, near_miss
from ...data.heads import head_name, parse_head
from .kind import REQUIRED, Kind, all_kinds

PHASES = ("both", "prefill", "decode")
"""When an edit holds: always, on whole prompts, or on single tokens after a cache."""
TOWER = "text"


@dataclass(frozen=True)
class Edit:
    """One change of some heads; which parameters it takes depends on its kind (`headatlas edit --help`).

    >>> Edit("scale", heads=["L0H1"], amount=0.5).spelled
    'scale(amount=0.5) of L0H1'
    """

    kind: str
    heads: Sequence[str] | None = None
    """Names such as L5H1; None: every head."""
    amount: float | None = None
    from_group: str | None = None
    """A label of tokens; `first`: the first that is no padding; `answering`: those whose next token is of the answer;
    `needle+answer`, `not:user` (`Place.keys`)."""
    to_group: str | None = None
    sinks: int | None = None
    recent: int | None = None
    threshold: float | None = None
    phase: str = "both"
    tower: str = TOWER
    by_prompt: Mapping[str, Sequence[str]] | None = field(default=None, hash=False)
    """In place of `heads`: the id of a prompt -> its heads; prompts that are not named stay as they are."""

    def __post_init__(self) -> None:
        kinds = all_kinds()
        if self.kind not in kinds:
            raise UserError(f"unknown edit {self.kind!r}.{near_miss(self.kind, kinds)} Expected {', '.join(kinds)}")
        if self.phase not in PHASES:
            raise UserError(f"edit {self.kind}: expected a phase of {', '.join(PHASES)}; came {self.phase!r}")
        if self.heads is not None and self.by_prompt is not None:
            raise UserError(f"edit {self.kind}: expected heads for all prompts or by_prompt, not both")
        if self.heads is not None and not len(self.heads):
            raise UserError(f"edit {self.kind}: no heads are named; leave `heads` out for every head")
        if self.heads is not None:
            object.__setattr__(self, "heads", _sorted(self.heads))
        if self.by_prompt is not None:
            object.__setattr__(self, "by_prompt", {name: _sorted(heads) for name, heads in self.by_prompt.items()})
        self._fill_in(self.kind_of.takes)

    def _fill_in(self, takes: dict[str, Any]) -> None:
        """Defaults for what was left out; what the kind does not take is refused."""
        for name in PARAMETERS:
            given = getattr(self, name)
            if given is not None and name not in takes:
                raise UserError(f"edit {self.kind} takes {', '.join(takes) or 'no parameters'}; came {name}={given!r}")
            if given is None and name in takes:
                if takes[name] is REQUIRED:
                    raise UserError(f"edit {self.kind} needs {name}, {PARAMETERS[name]}; it takes {', '.join(takes)}")
                object.__setattr__(self, name, takes[name])
        if self.kind_of.check is not None and (wrong := self.kind_of.check(self)):
            raise UserError(f"edit {self.kind}: {wrong}")

    @property
    def kind_of(self) -> Kind:
        """What there is to know of its kind."""
        return all_kinds()[self.kind]

    @cached_property
    def places(self) -> dict[int, tuple[int, ...]] | None:
        """Layer -> heads, of some prompt where they differ; None: every head of every layer."""
        if self.heads is None and self.by_prompt is None:
            return None
        names = self.heads if self.by_prompt is None else {one for heads in self.by_prompt.values() for one in heads}
        found: dict[int, tuple[int, ...]] = {}
        for layer, head in sorted(map(parse_head, names or ())):
            found[layer] = (*found.get(layer, ()), head)
        return found

    def holds(self, layer: int, head: int, prompt: str) -> bool:
        """Whether it edits this head for the prompt of this id."""
        if self.by_prompt is not None:
            return f"L{layer}H{head}" in self.by_prompt.get(prompt, ())
        return self.places is None or head in self.places.get(layer, ())

    @property
    def spelled(self) -> str:
        """The edit in one line."""
        given = ", ".join(f"{name}={getattr(self, name)}" for name in PARAMETERS if getattr(self, name) is not None)
        where = "every head" if self.heads is None else ", ".join(self.heads)
        if self.by_prompt is not None:
            where = f"heads of {len(self.by_prompt)} prompts"
        when = "" if self.phase == "both" else f", in {self.phase} alone"
        return f"{self.kind}{f'({given})' if given else ''} of {where}{when}"

    def of(self, heads: Sequence[tuple[int, int]]) -> Edit:
        """The same edit of other heads, (layer, head) each."""
        return replace(self, heads=[head_name(*one) for one in heads], by_prompt=None)

    def card(self) -> dict[str, Any]:
        """The edit as plain data, for a run's header: what is not said is left out."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        data["heads"] = None if self.heads is None else list(self.heads)
        data["by_prompt"] = self.by_prompt and {prompt: list(heads) for prompt, heads in self.by_prompt.items()}
        return {name: value for name, value in data.items() if value is not None and (name, value) not in SILENT}

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> Edit:
        """The edit of a card."""
        return cls(**card)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Heads by layer and number, each once."""
    places = sorted({parse_head(name) for name in ([names] if isinstance(names, str) else names)})
    return tuple(f"L{layer}H{head}" for layer, head in places)


PARAMETERS = {
    "amount": "a number that says how much",
    "from_group": "a label of tokens such as needle, or first",
    "to_group": "a label of tokens such as needle, or first",
    "sinks": "how many first keys are kept",
    "recent": "how many last keys are kept",
    "threshold": "what makes a hidden sink",
}
"""What an edit may take, and what that is."""
SILENT = (("phase", "both"), ("tower", TOWER))


def edits_from_json(text: str) -> list[Edit]:
    """Edits from a JSON list of cards."""
    try:
        cards = json.loads(text)
        return [Edit.from_card(card) for card in (cards if isinstance(cards, list) else [cards])]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"expected a JSON list of edits such as [{{'kind': 'zero', 'heads': ['L1H0']}}]; {error}"
        ) from None
