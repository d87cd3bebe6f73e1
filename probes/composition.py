"""`ha.composition(model)`: what every head reads of every earlier head, from the weights. Definitions in `pairs.py`."""

from __future__ import annotations

import pandas as pd

from ..data.errors import UserError
from .folding import head_weights
from .models import Model
from .pairs import pair_table


def composition(model: Model, *, seed: int = 0) -> pd.DataFrame:
    """Every pair of heads of different layers, the highest above chance first.

    Columns kind, source, target, score, baseline, affinity: `score - baseline` is what the reading `composition` takes
    the largest of, `affinity` what `subspace_affinity` does. `seed` is of the random heads behind the baseline.
    """
    weights = head_weights(model)
    unread = [name for name in ("w_q", "w_k", "w_v", "w_o") if name in weights.unread]
    if unread:
        raise UserError(f"{model.name}: {unread[0]} can't be told: {weights.unread[unread[0]]}")
    return pair_table(weights, seed=seed)
