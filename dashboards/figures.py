"""The figures people call by name: `ha.atlas(run, "sink_rate")` and `ha.head(run, "L5H1")`, for notebooks and scripts.

Both are pure: a run in, a `plotly.graph_objects.Figure` out. The dashboard draws with the same functions.
"""

from __future__ import annotations

import plotly.graph_objects as go

from ..data.errors import UserError
from ..data.heads import head_name, parse_head
from ..data.store import Run
from .cells import Limits
from .distribution import ranks_figure
from .heatmap import atlas_figure
from .layers import layers_figure
from .readings import every_reading, per_head, read
from .theme import Scheme
from .wording import FROM_WEIGHTS, stratum_text


def atlas(
    run: Run,
    probe: str,
    *,
    part: str | None = None,
    stratum: str | None = None,
    tower: str | None = None,
    minus: str = "",
    top: int | None = None,
    limits: Limits = "full",
    flip: bool = False,
    scheme: Scheme = "light",
) -> go.Figure:
    """The layer x head heatmap of one probe of a run, with the `top` highest heads framed; bars for a layer reading.

    A part, stratum or tower left out is the first the run has; the title says which. `minus` subtracts a baseline of
    the run, random or shuffled. Layer 0 is at the bottom.
    """
    reading = read(run, probe, part=part, stratum=stratum, tower=tower, minus=minus)
    said = (
        f"<b>{reading.title}</b> · {FROM_WEIGHTS if reading.of_weights else stratum_text(reading.stratum)} · {run.id}"
    )
    if reading.of_layers:
        return layers_figure(reading, scheme=scheme, flip=flip, title=said)
    return atlas_figure(reading, scheme=scheme, limits=limits, flip=flip, top=top or 0, title=said)


def head(
    run: Run, name: str, *, stratum: str | None = None, tower: str | None = None, scheme: Scheme = "light"
) -> go.Figure:
    """Where one head stands in every reading of a run: percentile among heads, value, interval and rank on hover."""
    label = head_name(*parse_head(name))
    readings = every_reading(run, per_head(run.heads()), stratum=stratum, tower=tower)
    if not any(label in set(reading.table["name"]) for reading in readings):
        raise UserError(f"expected a head that this run measured, got {label}; ha.atlas(run, probe) shows all of them")
    return ranks_figure(readings, label, scheme=scheme)
