import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from headatlas.data.errors import StoreError, UserError
from headatlas.data.store import open_store

from .stores import chunk_rows, examples_frame, fill, header


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "runs", create=True)


def test_rows_come_back_as_written(store):
    with store.writer(header()) as writer:
        fill(writer)
    run = store.run()
    assert repr(run) == "Run('tiny-lm-repeats-aea73850', done, 10 examples, 2 probes)"
    rows = run.rows("entropy")
    assert len(rows) == 10 * 2 * 3
    assert (rows["value"] == rows["example"] + 100 * rows["layer"] + 10 * rows["head"]).all()
    assert len(run.rows()) == 120
    one = run.rows("sink", layer=1, head=2)
    assert one["value"].tolist() == [k + 120.0 for k in range(10)]
    assert set(one["probe"].astype(str)) == {"sink"}
    assert run.missing().empty


def test_null_places_nan_parts_and_unicode(store):
    head = header(examples=2, probes=("größe", "undefined"))
    with store.writer(head) as writer:
        frame = examples_frame(
            2, id=["é", "模"], text=["naïve " * 100, "🙂"], c_sprache=["de", None], c_ok=[True, False]
        )
        writer.write_examples(frame.assign(token_ids=[[1, 2], None]))
        rows = {
            "example": [0, 0, 1],
            "probe": "größe",
            "part": ["früh", "", "früh"],
            "tower": "vision",
            "layer": [3, None, pd.NA],
            "head": [None, None, np.nan],
            "value": [0.5, np.nan, -1.0],
            "n_queries": [4, 0, 4],
        }
        writer.write_rows(0, rows, ["größe", "undefined"])
    run = store.run("latest")
    rows = run.rows("größe")
    assert rows["part"].astype(str).tolist() == ["früh", "", "früh"]
    assert rows["layer"].isna().tolist() == [False, True, True]
    assert rows["layer"].iloc[0] == 3
    assert rows["head"].isna().all()
    assert np.array_equal(rows["value"].to_numpy(), np.array([0.5, np.nan, -1.0], np.float32), equal_nan=True)
    assert rows["value"].dtype == np.float32
    assert run.rows("undefined").empty
    examples = run.examples()
    assert examples["id"].tolist() == ["é", "模"]
    assert examples["text"].str.len().tolist() == [400, 1]
    assert list(examples["token_ids"].iloc[0]) == [1, 2]
    assert examples["token_ids"].iloc[1] is None
    assert examples["c_sprache"].isna().tolist() == [False, True]
    assert examples["c_ok"].dtype == bool
    assert run.missing().empty


def test_positions_maps_and_edges_round_trip(store):
    with store.writer(header(examples=4)) as writer:
        place = {"example": [0, 1], "layer": [0, 1], "head": [1, 2]}
        lists = [[0.25, np.nan], [1.0]]
        writer.write_positions(0, {**place, "probe": "sink", "part": "", "axis": "key", "values": lists})
        writer.write_maps(
            0, {**place, "kind": "mean", "block": 8, "rows": 2, "cols": 1, "values": [[0.5, 0.5], [1, 0]]}
        )
        edge = {
            "source": ["a5.h1"],
            "target": ["m7"],
            "score": [0.5],
            "kept": [True],
            "task": "ioi",
            "method": "eap-ig",
        }
        writer.write_edges(edge)
        fill(writer, chunks=range(1), examples=4)
    run = store.run()
    positions = run.positions("sink", example=0)
    assert np.array_equal(positions["values"].iloc[0], [0.25, np.nan], equal_nan=True)
    assert run.positions("entropy").empty
    maps = run.maps(layer=1, kind="mean")
    assert (maps["rows"].iloc[0], maps["cols"].iloc[0], list(maps["values"].iloc[0])) == (2, 1, [1.0, 0.0])
    assert run.edges()["source"].tolist() == ["a5.h1"]


def test_layer_filter_is_pushed_down_to_row_groups(store):
    with store.writer(header()) as writer:
        writer.write_examples(examples_frame())
        frame = pd.concat([pd.DataFrame(rows) for rows in _named(0, ("sink", "entropy"))])
        writer.write_rows(0, frame, ["sink", "entropy"])
    part = next(writer.path.glob("rows-*.parquet"))
    file = pq.ParquetFile(part)
    groups = [file.metadata.row_group(k).column(1).statistics for k in range(file.num_row_groups)]
    assert [(group.min, group.max) for group in groups] == [("entropy", "entropy"), ("sink", "sink")]
    known = file.schema_arrow.metadata
    assert (json.loads(known[b"chunk"]), json.loads(known[b"keys"])) == (0, ["entropy", "sink"])


def test_listing_opens_no_parquet(store, monkeypatch):
    with store.writer(header()) as writer:
        fill(writer)
    for path in writer.path.glob("*.parquet"):
        path.write_bytes(b"not parquet")
    runs = store.runs()
    assert runs.loc[0, ["status", "model", "examples", "probes"]].tolist() == ["done", "org/Tiny-LM", 10, 2]


def test_a_broken_header_is_listed_and_skipped_by_latest(store):
    with store.writer(header()) as writer:
        fill(writer)
    broken = store.path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"schema_version": 1, "model"')
    runs = store.runs().set_index("run_id")
    assert runs.loc["broken", "status"] == "unreadable"
    assert "broken/run.json cannot be read" in runs.loc["broken", "error"]
    assert store.run().id == writer.path.name
    with pytest.raises(StoreError, match=r"broken/run\.json cannot be read: expected a run's header"):
        store.run("broken")


def test_a_failed_run_is_latest_only_where_there_is_no_other(store):
    with pytest.raises(RuntimeError, match="stop"), store.writer(header(seed=1)) as failed:
        raise RuntimeError("stop")
    assert store.runs()["status"].tolist() == ["failed"]
    assert store.run().id == failed.path.name
    with store.writer(header()) as writer:
        fill(writer)
    with pytest.raises(RuntimeError, match="stop"), store.writer(header(seed=2)):
        raise RuntimeError("stop")
    assert store.runs()["status"].tolist() == ["failed", "done", "failed"]
    assert store.run().id == writer.path.name


def test_a_newer_schema_is_refused(store):
    with store.writer(header()) as writer:
        fill(writer)
    path = writer.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    with pytest.raises(StoreError, match="has schema version 2; this headatlas reads version 1"):
        store.run(writer.path.name)


def test_runs_are_found_by_id_prefix_and_latest(store):
    names = []
    for seed in (0, 1):
        with store.writer(header(seed=seed)) as writer:
            fill(writer)
        names.append(writer.path.name)
    assert store.run().id == names[1]
    assert store.run(names[0]).id == names[0]
    assert store.run(names[0][:-3]).id == names[0]
    assert store.runs()["run_id"].tolist() == names[::-1]
    with pytest.raises(StoreError, match=r"'tiny' could be .*Give more of the id"):
        store.run("tiny")
    with pytest.raises(StoreError, match=r"no run 'tinny-lm.*Did you mean 'tiny-lm-repeats-"):
        store.run("tinny-lm-repeats")


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_of_other_things_is_not_a_store(tmp_path, create):
    (tmp_path / "photo.jpg").touch()
    message = r"is not a store: expected headatlas-store\.json or a run; it holds photo\.jpg\. Name another folder"
    with pytest.raises(StoreError, match=message):
        open_store(tmp_path, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_absent_empty_and_file(tmp_path):
    with pytest.raises(StoreError, match="the folder does not exist"):
        open_store(tmp_path / "absent")
    with pytest.raises(UserError, match="it holds nothing") as caught:
        open_store(tmp_path)
    assert caught.value.exit_code == 2
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected a folder; came a file"):
        open_store(tmp_path / "file", create=True)
    with pytest.raises(StoreError, match="holds no readable run"):
        open_store(tmp_path / "new", create=True).run()


def test_unknown_probe_is_suggested(store):
    with store.writer(header()) as writer:
        fill(writer)
    with pytest.raises(StoreError, match=r"holds no probe 'entropi'\. Did you mean 'entropy'\? It holds entropy, sink"):
        store.run().rows("entropi")


@pytest.mark.parametrize("damage", ["cut", "footer", "middle", "empty", "other"])
def test_a_damaged_part_is_named_not_dropped(store, damage):
    with store.writer(header()) as writer:
        fill(writer)
    part = sorted(writer.path.glob("rows-*.parquet"))[1]
    content = bytearray(part.read_bytes())
    if damage == "middle":
        content[40:60] = bytes(byte ^ 0xFF for byte in content[40:60])
    elif damage == "other":
        pq.write_table(pq.read_table(writer.path / "examples.parquet"), part)
    changed = {
        "cut": content[: len(content) // 2],
        "footer": content[:-20] + b"x" * 20,
        "empty": b"",
        "middle": content,
    }
    if damage in changed:
        part.write_bytes(changed[damage])
    with pytest.raises(StoreError, match=f"{part.name} cannot be read: .*Remove that file") as caught:
        store.run().rows()
    assert caught.value.exit_code == 1
    if damage != "middle":
        with pytest.raises(StoreError, match=f"{part.name} cannot be read"):
            store.writer(header())
    part.unlink()
    with store.writer(header()) as writer:
        assert len(writer.run.missing()) == 1
        fill(writer)
    assert len(store.run().rows()) == 120


def test_two_parts_with_the_same_chunk_and_probe_count_once(store):
    with store.writer(header()) as writer:
        fill(writer)
    for part in list(writer.path.glob("rows-00001-*.parquet")):
        (writer.path / f"{part.stem}-copy.parquet").write_bytes(part.read_bytes())
    assert len(store.run().rows()) == 120
    assert len(store.run().rows("sink")) == 60


def test_a_part_that_overlaps_gives_only_its_new_probes(store):
    with store.writer(header(probes=("a", "b"))) as writer:
        writer.write_examples(examples_frame())
        frame = pd.concat([pd.DataFrame(rows) for rows in _named(0, ("a", "b"))])
        writer.write_rows(0, frame, ["a", "b"])
        both = next(writer.path.glob("rows-*.parquet"))
        both = both.rename(both.with_name("rows-00000-zzzzzzzz.parquet"))
        writer._done.clear()
        writer.write_rows(0, _named(0, ("a",))[0], ["a"])
    assert sorted(path.name for path in writer.path.glob("rows-*"))[1] == both.name
    rows = store.run().rows()
    assert rows.groupby("probe", observed=True).size().to_dict() == {"a": 24, "b": 24}


def _named(chunk, names):
    return [chunk_rows(chunk, name) for name in names]


def test_heads_follow_rows_that_came_later(store):
    with store.writer(header(probes=("entropy",))) as writer:
        fill(writer, probes=("entropy",))
    assert set(store.run().heads()["probe"]) == {"entropy"}
    writer = store.writer(header())
    fill(writer)
    assert set(store.run().heads()["probe"]) == {"entropy", "sink"}
    writer.close()
    assert store.run().status == "interrupted"


def test_someone_elses_run_json_does_not_make_a_store(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "run.json").write_text("{}")
    with pytest.raises(StoreError, match=r"is not a store: .* it holds job"):
        open_store(tmp_path, create=True)


def test_a_store_that_lost_its_marker_is_still_a_store(store):
    with store.writer(header()) as writer:
        fill(writer)
    (store.path / "headatlas-store.json").unlink()
    assert len(open_store(store.path).runs()) == 1
    open_store(store.path, create=True)
    assert (store.path / "headatlas-store.json").exists()


def test_reading_needs_no_torch():
    code = "import sys, headatlas.data.store, headatlas.data.summary, headatlas.data.catalog, headatlas.data.verbs\n"
    code += "headatlas.data.catalog.all_datasets()\n"
    code += "assert not {'torch', 'transformers', 'plotly', 'duckdb', 'datasets'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
