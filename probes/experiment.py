"""What an experiment is: a head reading by forwards of its own, such as swapping one head and looking at a loss.

The decorated function gets the model and a batch and yields, call by call, values [batch, head] or [batch, head, part].
How many forwards a batch costs is declared, so that a plan can say it before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.errors import ProbeError
from ..data.tokens import TokenBatch
from ..kernels.stats import Call
from .measurement import Measurement, deciding
from .probe import Reading

if TYPE_CHECKING:
    from .models import Model


@dataclass(frozen=True, kw_only=True)
class Experiment(Measurement):
    """A head reading by forwards of its own. Made by the decorator `experiment`."""

    forwards: Callable[[Model], int]
    """Forwards of one batch."""
    why_forwards: str
    """What they are for, as in `one for each KV head`."""

    def measure(self, model: Model, batch: TokenBatch) -> Iterator[tuple[Call, Reading]]:
        """The reading of each attention call that it speaks of; a value is of all the tokens of its example."""
        parts = len(self.parts)
        for call, values in self.said("", model, batch):
            expected = (len(batch), call.heads, *((parts,) if parts else ()))
            if tuple(values.shape) != expected:
                raise ProbeError(
                    f"experiment {self.name!r}, layer {call.layer}: expected [batch, head{', part' if parts else ''}] "
                    f"of {list(expected)}, got {list(values.shape)}"
                )
            yield call, _reading(values if parts else values[..., None], batch)


def _reading(values: Tensor, batch: TokenBatch) -> Reading:
    """With the number of tokens that a defined value is of."""
    assert batch.lengths is not None
    count = batch.lengths[:, None, None].expand(values.shape)
    return Reading(values, torch.where(values.isnan().cpu(), 0, count))


experiment = deciding(Experiment)
