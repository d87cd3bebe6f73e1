import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from headatlas.data import atomic
from headatlas.data.errors import StoreError
from headatlas.data.lock import LOCK_NAME
from headatlas.data.store import open_store

from .stores import chunk_rows, examples_frame, fill, header

EXAMPLES = 160

CHILD = """
import sys, time
sys.path.insert(0, {folder!r})
from stores import fill, header
from headatlas.data.store import open_store
head = header(examples={examples})
with open_store({store!r}, create=True).writer(head) as writer:
    print("ready", flush=True)
    fill(writer, chunks=range({chunks}), examples={examples})
    time.sleep({sleep})
"""


def child(store, *, examples=EXAMPLES, chunks=40, sleep=0):
    folder = os.path.dirname(__file__)
    code = CHILD.format(folder=folder, store=str(store), examples=examples, chunks=chunks, sleep=sleep)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "runs", create=True)


def test_kill_9_and_resume_loses_and_doubles_nothing(store):
    process = child(store.path)
    for _ in range(2):
        while process.poll() is None and len(list(store.path.glob("*/rows-*.parquet"))) < 8:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        assert store.run().status == "interrupted"
        process = child(store.path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (store.run().path / "rows-00039-beef.parquet.1234.tmp").write_bytes(b"half a part")
    with store.writer(header(examples=EXAMPLES)) as writer:
        assert not list(writer.path.glob("*.tmp"))
        fill(writer, chunks=range(40), examples=EXAMPLES)
    run = store.run()
    rows = run.rows().sort_values(["probe", "example", "layer", "head"])
    expected = pd.concat(
        [
            pd.DataFrame(chunk_rows(chunk, name, examples=EXAMPLES))
            for name in ("entropy", "sink")
            for chunk in range(40)
        ]
    )
    for name in ("example", "layer", "head", "value"):
        assert np.array_equal(rows[name].to_numpy(np.float32), expected[name].to_numpy(np.float32))
    assert run.missing().empty
    assert (run.status, len(store.runs())) == ("done", 1)


def test_a_reader_during_a_write_sees_whole_parts(store):
    head = header(examples=80)
    seen = []
    with store.writer(head) as writer:
        writer.write_examples(examples_frame(80))
        thread = threading.Thread(target=fill, args=(writer,), kwargs={"chunks": range(20), "examples": 80})
        thread.start()
        while thread.is_alive():
            seen.append(len(store.run().rows("sink")))
        thread.join()
    assert all(count % 24 == 0 for count in seen)
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
    assert len(store.run().rows("sink")) == 480


def test_a_second_writer_is_refused_with_pid_and_host(store):
    process = child(store.path, examples=10, chunks=3, sleep=30)
    with pytest.raises(StoreError) as caught:
        store.writer(header(examples=10))
    process.kill()
    process.wait()
    message = str(caught.value)
    assert f"is being written by process {process.pid} on {socket.gethostname()}; expected no other writer" in message
    assert "Wait for it, or end it" in message
    store.writer(header(examples=10)).close()


def test_a_second_writer_in_the_same_process_is_refused(store):
    with store.writer(header()) as writer:
        with pytest.raises(StoreError, match=f"process {os.getpid()} on "):
            store.writer(header())
        fill(writer)
    assert not (writer.path / LOCK_NAME).exists()


@pytest.mark.parametrize("text", [None, "", "{garbled", "[]"])
def test_a_dead_owners_lock_is_taken_over(store, text):
    with store.writer(header()) as writer:
        fill(writer)
    owner = {"pid": dead_pid(), "host": socket.gethostname(), "started": "1"}
    (writer.path / LOCK_NAME).write_text(json.dumps(owner) if text is None else text)
    store.writer(header()).close()


def test_a_reused_pid_is_not_the_owner(store):
    with store.writer(header()) as writer:
        fill(writer)
    (writer.path / LOCK_NAME).write_text(
        json.dumps({"pid": os.getppid(), "host": socket.gethostname(), "started": "1"})
    )
    store.writer(header()).close()


def test_a_lock_of_another_machine_is_never_taken_over(store):
    with store.writer(header()) as writer:
        fill(writer)
    path = writer.path / LOCK_NAME
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": None}))
    with pytest.raises(StoreError, match=r"process 1 on elsewhere.*remove .*run.lock"):
        store.writer(header())
    assert json.loads(path.read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("step", ["fsync", "write", "rename"])
def test_a_full_disk_loses_nothing(store, monkeypatch, step):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreError) as caught, store.writer(header()) as writer:  # noqa: PT012
        fill(writer, chunks=range(2))
        with monkeypatch.context() as patch:
            break_disk(patch, step, full)
            writer.write_rows(2, chunk_rows(2, "sink"), ["sink"])
    message = str(caught.value)
    assert message.startswith("the disk is full: could not write ")
    assert "\n" not in message
    assert caught.value.exit_code == 1
    run = store.run()
    assert (run.status, run.header["error"]) == ("failed", f"StoreError: {message}")
    assert not list(run.path.glob("*.tmp"))
    assert len(run.rows()) == 96
    assert run.missing().to_dict("records") == [{"probe": "entropy", "chunk": 2}, {"probe": "sink", "chunk": 2}]
    with store.writer(header()) as writer:
        fill(writer)
    assert (store.run().status, len(store.run().rows())) == ("done", 120)
    assert store.run().header["error"] is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of open files are read from /proc")
def test_files_are_synced_in_order(tmp_path, monkeypatch):
    """The content before the name, and the name before the folder is left."""
    calls = []
    real = os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("rename"), real(old, new)))
    atomic.write_json(tmp_path / "a.json", {"x": 1})
    assert calls[0].startswith(str(tmp_path / "a.json."))
    assert calls[0].endswith(".tmp")
    assert calls[1:] == ["rename", str(tmp_path)]


def break_disk(patch, step, full):
    """Make parquet files, and them alone, hit a full disk at one step."""

    def fail(*_):
        raise full

    if step == "fsync":
        patch.setattr(atomic.os, "fsync", fail)
    elif step == "rename":
        patch.setattr(atomic.os, "replace", fail)
    else:
        patch.setattr(atomic.pq.ParquetWriter, "write_table", fail)


def test_a_disk_that_stays_full_still_gives_the_one_line(store, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="the disk is full"), store.writer(header()) as writer:  # noqa: PT012
        fill(writer, chunks=range(2))
        monkeypatch.setattr(atomic.os, "fsync", fail)
        writer.write_rows(2, chunk_rows(2, "sink"), ["sink"])
    assert store.run().status == "interrupted"
    assert len(store.run().rows()) == 96


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("boom\nmore"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_exception_keeps_what_was_written(store, error, status):
    with pytest.raises(type(error)), store.writer(header()) as writer:  # noqa: PT012
        fill(writer, chunks=range(1))
        raise error
    run = store.run()
    assert run.status == status
    assert run.header["error"].startswith(type(error).__name__)
    assert "\n" not in run.header["error"]
    assert len(run.rows()) == 48
    assert set(run.heads()["n_examples"]) == {4}


def test_resuming_adds_probes_and_keeps_the_chunk_size(store):
    with store.writer(header(probes=("sink",), series="training")) as writer:
        fill(writer, probes=("sink",))
    created = writer.header["created"]
    with store.writer(header(probes=("entropy",), chunk_size=64, device="cuda")) as writer:
        assert writer.header["chunk_size"] == 4
        assert writer.header["device"] == "cuda"
        assert writer.done(0) == {"sink"}
        assert store.run().status == "running"
        assert len(writer.run.missing()) == 3
        fill(writer, probes=("entropy",))
    done = store.run().header
    assert list(done["probes"]) == ["sink", "entropy"]
    assert done["progress"] == {"chunks": 3, "done": {"sink": 3, "entropy": 3}}
    assert done["created"] == created < done["updated"]
    assert done["series"] == "training"
    assert done["seconds"] > 0


def test_another_version_of_a_probe_is_refused(store):
    with store.writer(header(probes=("sink",))) as writer:
        fill(writer, probes=("sink",))
    with pytest.raises(StoreError, match="holds sink@1; this headatlas measures sink@2, which is not comparable"):
        store.writer(header(probes={"sink": {}}) | {"probes": {"sink": {"version": 2}}})
    store.writer(header()).close()


def test_a_chunk_is_written_once_with_its_own_rows(store):
    with store.writer(header()) as writer:
        fill(writer, chunks=range(1), probes=("sink",))
        with pytest.raises(StoreError, match=r"chunk 0: expected probes of the header, once each; twice \['sink'\]"):
            writer.write_rows(0, chunk_rows(0, "sink"), ["sink"])
        with pytest.raises(StoreError, match=r"not known \['other'\]"):
            writer.write_rows(0, chunk_rows(0, "other"), ["other"])
        with pytest.raises(StoreError, match=r"chunk 1: expected examples 4\.\.7 of 10; came 0\.\.3"):
            writer.write_rows(1, chunk_rows(0, "entropy"), ["entropy"])
        with pytest.raises(StoreError, match="chunk 1: expected rows of entropy; came rows of sink"):
            writer.write_rows(1, chunk_rows(1, "sink"), ["entropy"])
        assert writer.done(1) == set()
    assert store.run().status == "interrupted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": -1}, r"column 'layer': expected int16; came -1\.\.-1; write None where there is no layer or head"),
        ({"head": 1.5}, "column 'head': expected int16"),
        ({"example": None}, "column 'example': expected a value in every row; 24 are null"),
        ({"value": [1.0]}, "expected columns of one length"),
        ({"extra": 1}, r"missing \[\], not known \['extra'\]"),
    ],
)
def test_bad_columns_are_named(store, change, message):
    with store.writer(header()) as writer, pytest.raises(StoreError, match=message):
        writer.write_rows(0, {**chunk_rows(0, "sink"), **change}, ["sink"])


def test_examples_must_match_the_header_and_the_stored_ones(store):
    with store.writer(header()) as writer:
        with pytest.raises(StoreError, match=r"expected examples 0\.\.9 in order; came 4 rows"):
            writer.write_examples(examples_frame(4))
        with pytest.raises(StoreError, match=r"condition 'kind': expected one type .* came \['int', 'str'\]"):
            writer.write_examples(examples_frame(10, c_kind=[1, "a"] * 5))
        writer.write_examples(examples_frame())
        writer.write_examples(examples_frame())
        with pytest.raises(StoreError, match="holds other examples than these"):
            writer.write_examples(examples_frame(id=[f"x{k}" for k in range(10)]))


def test_finish_says_what_is_missing(store):
    with store.writer(header()) as writer:
        fill(writer, chunks=range(2))
        with pytest.raises(StoreError, match="is not done: 2 chunks are missing, first chunk 2 of entropy"):
            writer.finish("done")
        with pytest.raises(ValueError, match=r"expected a status of .* came 'running'"):
            writer.finish("running")


def test_a_header_holds_no_nan(store):
    with pytest.raises(StoreError, match=r"run\.json: expected values that JSON can hold"):
        store.writer(header(extra=float("nan")))
    assert store.runs().empty


def test_running_is_running_only_while_its_writer_lives(store):
    writer = store.writer(header())
    assert store.runs()["status"].tolist() == ["running"]
    writer.close()
    assert store.runs()["status"].tolist() == ["interrupted"]
