"""A run that several commands share is made once: by one process, for which the others wait."""

import multiprocessing
import socket
import time

import pytest
from headatlas.data.errors import LockedError
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.data.lock import LOCK_NAME
from headatlas.data.store import open_store
from headatlas.probes.causal import prompts
from headatlas.probes.edit_run import EditPlan, carry_out
from headatlas.probes.learn import LearnPlan, Settings, plan_learning
from headatlas.probes.learn import carry_out as learned
from headatlas.probes.once import stored

from .tiny import HEADS, LAYERS, tiny

STARTED = "started"


@pytest.fixture
def folder(tmp_path):
    """A folder with 24 prompts and an empty store."""
    examples = [
        Example(id=f"e{k}", token_ids=(7, 20 + k, 30, 5 + k % 2), answer_ids=(9,), conditions={"kind": str(k % 2)})
        for k in range(24)
    ]
    write_examples(tmp_path / "made.jsonl", examples)
    open_store(tmp_path / "runs", create=True)
    return tmp_path


def unedited(folder):
    """The plan of the run that every edit on these prompts begins with."""
    plan, _ = prompts(tiny(), str(folder / "made.jsonl"), examples=24, seed=0, bos="default", batch_tokens=64)
    return EditPlan(plan)


def slowly(folder, dying):
    """Make that run in a process of its own, which takes a while, or dies on the way."""

    def wait(progress):
        if not (folder / STARTED).exists():
            (folder / STARTED).touch()
            time.sleep(1.5)
            if dying:
                raise RuntimeError

    carry_out(unedited(folder), folder / "runs", report=wait)


@pytest.mark.parametrize("dying", [False, True])
def test_a_second_process_waits_for_the_first_and_takes_what_it_made(folder, dying, capsys):
    plan, told = unedited(folder), []
    process = multiprocessing.get_context("spawn").Process(target=slowly, args=(folder, dying))
    process.start()
    while not (folder / STARTED).exists():
        assert process.is_alive()
        time.sleep(0.05)
    assert stored(plan, folder / "runs") is None
    run = carry_out(plan, folder / "runs", report=told.append)
    process.join()
    said = capsys.readouterr().err.splitlines()
    waiting = f"{run.id}: waiting for process {process.pid} on {socket.gethostname()}, which is making this run"
    assert [line for line in said if "waiting" in line] == [f"{waiting}; Ctrl-C stops"]
    assert (run.status, len(run.missing())) == ("done", 0)
    assert bool(told) == dying  # nothing was left to do, unless the first process failed: then the rest


def test_a_lock_of_another_machine_is_not_waited_for(folder):
    plan = unedited(folder)
    writer = open_store(folder / "runs").writer(plan.header())
    path = writer.path
    writer.close()
    (path / LOCK_NAME).write_text('{"pid": 1, "host": "elsewhere"}')
    with pytest.raises(LockedError, match="process 1 on elsewhere"):
        carry_out(plan, folder / "runs")


def test_progress_of_learning_counts_the_fits(folder):
    settings, told = Settings("kind", controls=1, folds=2), []
    plan = plan_learning(tiny(), str(folder / "made.jsonl"), settings, examples=24, seed=0, bos="default")
    assert isinstance(plan, LearnPlan)
    learned(plan, folder / "runs", report=told.append)
    assert plan.steps == 24 + LAYERS * (HEADS + 1)
    assert [one.examples for one in told][-LAYERS * (HEADS + 1) :] == list(range(25, plan.steps + 1))
    assert {one.total for one in told} == {plan.steps}
