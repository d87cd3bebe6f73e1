"""One forward of a model with its attention statistics.

Statistics are computed inside each attention call, from its own queries and keys, and handed over or collected as
`AttentionStats`; nothing of a layer outlives its call unless it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..data.tokens import TokenBatch
from ..kernels.stats import AttentionStats, Call, split_name
from .batching import check_tokens
from .check import check_capture
from .models import Model
from .observer import Observer, OnLayer, run


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
    In the list, rows of padding are NaN; what `on_layer` is handed has them as computed, and `stats.real_queries`.
    """
    if edits:
        raise NotImplementedError("edits are not built yet; pass edits=()")
    wanted = frozenset(needs)
    for name in wanted:
        split_name(name)
    if model.verify and not model.calls:
        check_capture(model, batch)
    check_tokens(model, batch)
    observer = Observer(model, batch, wanted, on_layer, layers)
    run(model, batch, observer)
    return [stats.without_padding() for stats in observer.collected]
