"""What a reading of weights is: a pure function of a model's head weights to one number per layer and head.

No prompt is run: a reading is of the model, n is 1, and there is no interval. It is measured as the data set `weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data.errors import ProbeError, failure_of
from .probe import told_by
from .weights import NAMES, HeadWeights

Function = Callable[[HeadWeights], Tensor]
DATA = "weights"
"""The name of the data set that readings of weights are measured as."""


@dataclass(frozen=True)
class WeightReading:
    """A reading of weights with everything a reader must know to trust it. Made by the decorator `reading`."""

    name: str
    function: Function = field(repr=False)
    title: str
    summary: str
    formula: str
    needs: frozenset[str]
    """Names of weights, such as `w_v`."""
    unit: str
    bounds: tuple[float, float | None]
    higher: str
    """What a high value means."""
    caveat: str
    """What it does not show."""
    source: str
    family: str = ""
    version: int = 1
    parts: tuple[str, ...] = ()
    scale_free: bool = True
    """A factor on the queries, keys or writing of one head changes nothing: norms that rescale those do not matter."""
    explanation: str = field(default="", repr=False)
    file: Path | None = field(default=None, repr=False)
    """The user's own file it stands in; None for a reading that is installed."""
    code: str = field(default="", repr=False)
    """Digest of that file: with other code it is another measurement, and another run."""

    default_data: ClassVar[str] = DATA
    groups: ClassVar[tuple[str, ...]] = ()
    per: ClassVar[str] = DATA

    def __post_init__(self) -> None:
        unknown = sorted(self.needs - set(NAMES))
        if unknown or not self.needs:
            came = ", ".join(unknown) or "nothing"
            raise ValueError(f"reading {self.name!r} needs {came}; expected some of {', '.join(NAMES)}")

    @property
    def spelled(self) -> str:
        """Name with version, `copying_score@1`."""
        return f"{self.name}@{self.version}"

    def why_not(self, weights: HeadWeights) -> str | None:
        """Why these weights can't be read, or None."""
        unread = sorted(self.needs & set(weights.unread))
        if unread:
            return f"reads {unread[0]}, which can't be told: {weights.unread[unread[0]]}"
        rescaled = sorted(self.needs & set(weights.rescaled))
        if rescaled and not self.scale_free:
            norm = weights.rescaled[rescaled[0]]
            return f"is about the size of {rescaled[0]}, which {norm} rescales token by token"
        return None

    def measure(self, weights: HeadWeights) -> Tensor:
        """[layer, head, part] in float32; NaN where undefined."""
        values = self._of_function(weights)
        expected = (*weights.w_q.shape[:2], *((len(self.parts),) if self.parts else ()))
        if tuple(values.shape) != expected:
            axes = f"[layer, head{', part' if self.parts else ''}]"
            raise ProbeError(f"reading {self.name!r}: expected {axes} of {list(expected)}, got {list(values.shape)}")
        return (values if self.parts else values[..., None]).float()

    def _of_function(self, weights: HeadWeights) -> Tensor:
        if self.file is None:
            return self.function(weights)
        try:
            return torch.as_tensor(self.function(weights))
        except Exception as error:
            raise ProbeError(f"reading {self.name!r}: {failure_of(error, self.file)}", exit_code=1) from error

    def card(self) -> dict[str, Any]:
        """The reading as plain data, in the shape of a probe's card; `per` is `weights`."""
        data = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("function", "file")}
        facts = {"default_data": DATA, "per": DATA, "binary": False, "groups": []}
        return data | facts | {"needs": sorted(self.needs), "parts": list(self.parts), "bounds": list(self.bounds)}


def reading(
    *,
    needs: set[str] | frozenset[str],
    title: str,
    formula: str,
    unit: str,
    bounds: tuple[float, float | None],
    higher: str,
    caveat: str,
    source: str,
    **options: Any,
) -> Callable[[Function], WeightReading]:
    """Make a `WeightReading` of a function (weights) -> values; its name and family come from where it stands."""

    def make(function: Function) -> WeightReading:
        return WeightReading(
            function=function,
            needs=frozenset(needs),
            title=title,
            formula=formula,
            unit=unit,
            bounds=bounds,
            higher=higher,
            caveat=caveat,
            source=source,
            **(told_by(function) | options),
        )

    return make
