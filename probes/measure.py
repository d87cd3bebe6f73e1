"""`measure`: a model runs once over a data set, probes reduce what its heads do, rows land in the store.

One forward per batch serves every probe. A chunk of examples is written whole before the next one starts, so a run
that was stopped anywhere goes on where it was, and a run that is measured with more probes adds only those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ..data.catalog import all_datasets
from ..data.errors import NoTemplateError, UserError
from ..data.examples import Example
from ..data.run import finished
from ..data.store import Run, RunWriter, open_store
from ..kernels.dispatch import using
from .baselines import baseline_plans, random_weights
from .catalog import select, spelled_out
from .experiment import Experiment
from .forward import observe
from .measurement import Measurement
from .models import Model
from .plan import BATCH_TOKENS, Plan, make_plan
from .probe import Probe
from .progress import Bar, Progress, Report
from .reading import DATA, WeightReading
from .rows import ChunkTables
from .weights_run import WeightsPlan, apart, measure_weights, plan_weights


@overload
def measure(
    model: Model, probes: str | Iterable[str], data: str, *, examples: int = ..., store: str | Path = ...,
    seed: int = ..., bos: str = ..., batch_tokens: int = ..., keep_positions: int = ..., answers: str = ...,
    baselines: bool = ..., report: Report | None = ...,
) -> Run: ...  # fmt: skip
@overload
def measure(
    model: Model, probes: str | Iterable[str], data: None = None, *, examples: int = ..., store: str | Path = ...,
    seed: int = ..., bos: str = ..., batch_tokens: int = ..., keep_positions: int = ..., answers: str = ...,
    baselines: bool = ..., report: Report | None = ...,
) -> list[Run]: ...  # fmt: skip


def measure(
    model: Model,
    probes: str | Iterable[str],
    data: str | None = None,
    *,
    examples: int = 32,
    store: str | Path = "runs",
    seed: int = 0,
    bos: str = "default",
    batch_tokens: int = BATCH_TOKENS,
    keep_positions: int = 8,
    answers: str = "given",
    baselines: bool = False,
    report: Report | None = None,
) -> Run | list[Run]:
    """Measure `probes` (names, families, globs, `all`) and return the run.

    With `data`, one run over that data set; a probe that was named and can't be measured there is an error. Without,
    each probe is measured on its own default data set, and the list of runs comes back; readings of weights have a run
    of their own, the data set `weights`. The same call again does only what is missing. Answers are forced upon the
    model as they are `given`, or are its `own` (greedy), or its own where they are `right`, other prompts left out.
    With `baselines`, each run over prompts is followed by the same with random weights and with shuffled tokens, as
    runs of their own: `run.baselines()`, `run.against("random", probe)`.
    """
    plans = plan_runs(
        model, select(probes), data, named=spelled_out(probes), examples=examples, seed=seed, bos=bos,
        batch_tokens=batch_tokens, keep_positions=keep_positions, answers=answers, baselines=baselines,
    )  # fmt: skip
    with Bar(sum(len(plan.data.examples) for plan in plans)) as bar:
        done = [(plan, carry_out(plan, store, report=report or bar)) for plan in plans]
    runs = [run for plan, run in done if plan.baseline is None]
    return runs if data is None else runs[0]


def plan_runs(
    model: Model,
    probes: Sequence[Measurement],
    data: str | None,
    *,
    named: Collection[str] = (),
    seed: int = 0,
    baselines: bool = False,
    **options: Any,
) -> list[Plan | WeightsPlan]:
    """One plan for `data`, or one for each default data set; every probe is also measured wherever else it can be.

    Of default data sets, those that ask nothing are measured as they are, whatever `answers` says. With `baselines`,
    each of these plans is followed by those of its baselines. Readings of weights have a plan of their own; where they
    were not named and the model's weights can't be read, they are skipped; so are probes of conversations where the
    model has no chat template.
    """
    prompted, readings = apart(probes)
    if data == DATA:
        return [plan_weights(model, probes, named=named)]
    if data is not None:
        chosen = [*prompted, *(one for one in readings if one.name in named or not prompted)]
        plans = [make_plan(model, chosen, data, named=named, seed=seed, **options)]
    else:
        asking = {card["name"] for card in all_datasets() if "answer" in card["groups"]}
        silent: dict[str, Any] = {**options, "answers": "given"}
        options_of = {one.default_data: options if one.default_data in asking else silent for one in prompted}
        plans = _default_plans(model, prompted, options_of, named, seed=seed)
    of_weights = _weights_plans(model, readings, plans, named) if data is None else []
    if baselines and plans:
        random = random_weights(model, seed=seed)
        plans = [one for plan in plans for one in (plan, *baseline_plans(plan, random))]
    return [*plans, *of_weights]


def _default_plans(
    model: Model,
    probes: Sequence[Measurement],
    options_of: Mapping[str, dict[str, Any]],
    named: Collection[str],
    *,
    seed: int,
) -> list[Plan]:
    """One plan per default data set; conversations are left out where the model has no template for them."""
    plans: list[Plan] = []
    left_out: dict[str, str] = {}
    for spec, options in options_of.items():
        try:
            plans.append(make_plan(model, probes, spec, seed=seed, **options))
        except NoTemplateError as error:
            at_home = {one.name: str(error) for one in probes if one.default_data == spec}
            if at_home.keys() & set(named) or len(at_home) == len(probes):
                raise
            left_out |= at_home
    if plans:
        plans[0].skipped.update({name: why for name, why in left_out.items() if name in plans[0].skipped})
    return plans


def _weights_plans(
    model: Model, readings: Sequence[WeightReading], plans: Sequence[Plan], named: Collection[str]
) -> list[WeightsPlan]:
    """The plan of the readings of weights; none where they were not named and can't be had: the first plan says so."""
    try:
        return [plan_weights(model, readings, named=named)] if readings else []
    except UserError as error:
        if not plans or {one.name for one in readings} & set(named):
            raise
        plans[0].skipped.update({one.name: str(error) for one in readings})
        return []


def stored_run(plan: Plan | WeightsPlan, store: str | Path) -> Run | None:
    """The run of this plan if the store holds all of it."""
    return finished(Path(store), plan.header())


def carry_out(plan: Plan | WeightsPlan, store: str | Path, *, report: Report | None = None) -> Run:
    """Measure what the store does not hold yet of one plan."""
    if isinstance(plan, WeightsPlan):
        with open_store(store, create=True).writer(plan.header()) as writer:
            return measure_weights(plan, writer, report)
    with open_store(store, create=True).writer(plan.header()) as writer, using(plan.statistics_by):
        size = int(writer.header["chunk_size"])
        examples = plan.data.examples
        writer.write_examples(plan.frame)
        for chunk in range(-(-len(examples) // size)):
            missing = [one for one in plan.probes if one.name not in writer.done(chunk)]
            if missing:
                _measure_chunk(plan, writer, chunk, examples[chunk * size : (chunk + 1) * size], missing)
            if report is not None:
                report(Progress(writer.path.name, min((chunk + 1) * size, len(examples)), len(examples)))
        writer.finish("done" if not len(writer.run.missing()) else "interrupted")
        return writer.run


def _measure_chunk(
    plan: Plan, writer: RunWriter, chunk: int, examples: Sequence[Example], chosen: Sequence[Measurement]
) -> None:
    """Forward, reduce and write one chunk; then the forwards of its experiments."""
    probes = tuple(one for one in chosen if isinstance(one, Probe))
    experiments = [one for one in chosen if isinstance(one, Experiment)]
    first, keep = chunk * int(writer.header["chunk_size"]), int(writer.header["keep_positions"])
    tables = ChunkTables(probes, with_maps=not any(writer.path.glob(f"maps-{chunk:05d}-*")))
    for batch_examples in plan.batches(first, examples):
        batch = plan.encode(batch_examples)
        window = tables.open(first, plan.lengths[first : first + len(batch)], keep)
        if window.needs:
            observe(plan.model, batch, window.needs, on_layer=window.add)
        for one in experiments:
            for call, reading in one.measure(plan.model, batch):
                tables.add_reading(one, call, reading, first)
        first += len(batch)
    if tables.positions:
        writer.write_positions(chunk, tables.positions)
    if tables.maps:
        writer.write_maps(chunk, tables.maps)
    writer.write_rows(chunk, tables.rows(), [one.name for one in chosen])
