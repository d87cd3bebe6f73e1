"""headatlas: a workbench for attention heads.

Nothing is imported here at import time: every public name is fetched from its room on first use,
so `import headatlas` takes milliseconds and needs neither torch nor plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_ROOMS = {
    "load": "probes.loading",
    "Model": "probes.models",
    "all_models": "probes.organisms",
    "batch": "probes.batching",
    "observe": "probes.forward",
    "Edit": "probes.edits.edit",
    "edited": "probes.forward",
    "head_outputs": "probes.forward",
    "mean_outputs": "probes.forward",
    "causal_report": "probes.causal",
    "stored_report": "data.reports",
    "budget": "probes.budget",
    "stored_budget": "data.budget",
    "prompts": "probes.causal",
    "generate": "probes.generation",
    "zero_tuning": "probes.methods.tune",
    "act_search": "probes.methods.tune",
    "pasta": "probes.methods.tune",
    "greedy_heads": "probes.methods.tune",
    "measure": "probes.measure",
    "learn": "probes.learn",
    "gates": "probes.gates",
    "taxonomy": "data.taxonomy",
    "reproduce": "probes.reproduce",
    "probe": "probes.probe",
    "all_probes": "probes.catalog",
    "reading": "probes.reading",
    "all_readings": "probes.catalog",
    "experiment": "probes.experiment",
    "all_experiments": "probes.catalog",
    "composition": "probes.composition",
    "head_weights": "probes.folding",
    "AttentionStats": "kernels.stats",
    "Example": "data.examples",
    "TokenBatch": "data.tokens",
    "all_datasets": "data.catalog",
    "open_store": "data.store",
    "Run": "data.store",
    "rhythm": "data.rhythm",
    "agreement": "data.agreement",
    "policy": "data.policy",
    "policy_curve": "probes.policy_curve",
    "read_policy": "data.policy_file",
    "write_policy": "data.policy_file",
    "atlas": "dashboards.figures",
    "head": "dashboards.figures",
    "causal_figure": "dashboards.causal",
    "budget_figure": "dashboards.budget",
    "policy_figure": "dashboards.policy",
    "rhythm_figure": "dashboards.rhythm",
    "serve": "dashboards.app",
    "bench": "probes.bench",
    "__version__": "data.version",
}
__all__ = sorted(_ROOMS)

if TYPE_CHECKING:
    from .dashboards.app import serve
    from .dashboards.budget import budget_figure
    from .dashboards.causal import causal_figure
    from .dashboards.figures import atlas, head
    from .dashboards.policy import policy_figure
    from .dashboards.rhythm import rhythm_figure
    from .data.agreement import agreement
    from .data.budget import stored_budget
    from .data.catalog import all_datasets
    from .data.examples import Example
    from .data.policy import policy
    from .data.policy_file import read_policy, write_policy
    from .data.reports import stored_report
    from .data.rhythm import rhythm
    from .data.store import Run, open_store
    from .data.taxonomy import taxonomy
    from .data.tokens import TokenBatch
    from .data.version import __version__
    from .kernels.stats import AttentionStats
    from .probes.batching import batch
    from .probes.bench import bench
    from .probes.budget import budget
    from .probes.catalog import all_experiments, all_probes, all_readings
    from .probes.causal import causal_report, prompts
    from .probes.composition import composition
    from .probes.edits.edit import Edit
    from .probes.experiment import experiment
    from .probes.folding import head_weights
    from .probes.forward import edited, head_outputs, mean_outputs, observe
    from .probes.gates import gates
    from .probes.generation import generate
    from .probes.learn import learn
    from .probes.loading import load
    from .probes.measure import measure
    from .probes.methods.tune import act_search, greedy_heads, pasta, zero_tuning
    from .probes.models import Model
    from .probes.organisms import all_models
    from .probes.policy_curve import policy_curve
    from .probes.probe import probe
    from .probes.reading import reading
    from .probes.reproduce import reproduce


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"headatlas has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
