"""What a reading of weights is: a pure function of a model's head weights to one number per layer and head.

No prompt is run: a reading is of the model, n is 1, and there is no interval. It is measured as the data set `weights`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.errors import ProbeError
from .measurement import Measurement, deciding
from .weights import NAMES, HeadWeights

DATA = "weights"
"""The name of the data set that readings of weights are measured as."""


@dataclass(frozen=True, kw_only=True)
class WeightReading(Measurement):
    """A reading of weights; `needs` names them, such as `w_v`. Made by the decorator `reading`."""

    default_data: str = DATA
    per: str = DATA
    scale_free: bool = True
    """A factor on the queries, keys or writing of one head changes nothing: norms that rescale those do not matter."""

    def __post_init__(self) -> None:
        unknown = sorted(self.needs - set(NAMES))
        if unknown or not self.needs:
            came = ", ".join(unknown) or "nothing"
            raise ValueError(f"reading {self.name!r} needs {came}; expected some of {', '.join(NAMES)}")

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
        values: Tensor = torch.as_tensor(self.said("", weights))
        expected = (*weights.w_q.shape[:2], *((len(self.parts),) if self.parts else ()))
        if tuple(values.shape) != expected:
            axes = f"[layer, head{', part' if self.parts else ''}]"
            raise ProbeError(f"reading {self.name!r}: expected {axes} of {list(expected)}, got {list(values.shape)}")
        return (values if self.parts else values[..., None]).float()


reading = deciding(WeightReading)
