"""The scripts of `benchmarks/`: every step's command is one that there is, and the tables are read as they were made."""

import os
import stat
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import headatlas
import pandas as pd
import pytest
import torch

FOLDER = Path(headatlas.__file__).resolve().parent / "benchmarks"


def script(name):
    spec = spec_from_file_location(name, FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs in Triton's interpreter")
def test_tiles_measures_candidates_beside_the_shape_in_use(monkeypatch, tmp_path, capsys):
    pytest.importorskip("triton")
    tiles = script("tiles")
    candidates = {"BLOCK_Q": (64,), "BLOCK_K": (16, 64), "num_warps": (4,), "num_stages": (2,)}
    monkeypatch.setattr(tiles, "CANDIDATES", candidates)
    own = tiles.Launch.sizes
    words = "--device cpu --length 40 --heads 2 --kv-heads 1 --width 16 --repeats 1 --sets logsumexp".split()
    assert tiles.main([*words, "--out", str(tmp_path / "tiles.csv")]) == 0
    rows = pd.read_csv(tmp_path / "tiles.csv", keep_default_na=False)
    assert list(rows["note"]) == ["in use", "", ""]
    assert sorted(zip(rows["BLOCK_Q"], rows["BLOCK_K"]))[:2] == [(64, 16), (64, 64)]
    assert tiles.Launch.sizes is own
    assert "logsumexp: 40 tokens, 2 heads of 16" in capsys.readouterr().out
    said = script("summary").tiles(tmp_path)
    assert said[0] == "tiles"
    assert said[2].startswith("  logsumexp, best: ")


def test_the_candidates_of_block_maps_are_a_cell_wide():
    pytest.importorskip("triton")
    tiles = script("tiles")
    assert {(one["BLOCK_Q"], one["BLOCK_K"]) for one in tiles.candidates(cells=True)} == {(64, 64), (128, 64)}
    likely = {"BLOCK_Q": 128, "BLOCK_K": 64, "num_warps": 8, "num_stages": 2, "maxnreg": 128}
    assert likely in tiles.candidates(cells=False)[:9]


def test_the_machine_code_of_a_tile_is_counted():
    """Two loops, the last of them the open one; in it an if and else, of which the longer side is left out."""
    pytest.importorskip("triton")
    instructions = script("instructions")
    tile = ["HGMMA.64x64x16.F32.BF16 R24, gdesc[UR20], R24", "MUFU.EX2 R1, R2", *["FADD R1, R1, R2"] * 30]
    found = instructions.cycles(tile, threads=256, pairs=128 * 64)
    assert found == {
        "issue": 32 * 8 / 4, "tensor": 64 * 64 * 16 * 2 / 2048, "special": 256 / 16, "memory": 2 * 128 * 16 * 2 / 128
    }  # fmt: skip
    assert instructions.cycles(tile, threads=256, pairs=64 * 64)["issue"] == 128
    wide = [text.replace("BF16", "TF32") for text in tile]
    assert instructions.cycles(wide, threads=256, pairs=128 * 64)["tensor"] == 2 * found["tensor"]


def test_the_longer_side_of_a_branch_is_for_few_blocks(monkeypatch):
    pytest.importorskip("triton")
    instructions = script("instructions")
    body = ["FADD"] * 5 + ["@P0 BRA 0x3b0"] + ["FMUL"] * 52 + ["BRA 0x680"] + ["FFMA"] * 45 + ["MUFU"] * 3
    body += ["@P1 BRA 0x000"]
    assert body.index("FFMA") == 0x3B0 // 16 and body.index("MUFU") == 0x680 // 16
    text = "\n".join(f"/*{16 * place:04x}*/   {one} ;" for place, one in enumerate(body))
    monkeypatch.setattr(instructions, "read", lambda *_: text)
    kept = instructions.open_loop(b"")
    assert [kept.count(name) for name in ("FADD", "FMUL", "FFMA", "MUFU")] == [5, 0, 45, 3]


def test_a_failing_candidate_is_named_and_a_wrong_one_too(monkeypatch):
    pytest.importorskip("triton")
    tiles = script("tiles")

    def fake(inputs, needs, logsumexp=None):
        shape = tiles.Launch.sizes(LAUNCH)
        if shape["BLOCK_K"] == 128:
            raise RuntimeError("out of resource: shared memory\nand more")
        return {"logsumexp": torch.full((3,), 1.0 if shape["BLOCK_K"] == 32 else 2.0)}

    LAUNCH = None
    monkeypatch.setattr(tiles, "triton_stats", fake)
    monkeypatch.setattr(tiles.Launch, "sizes", lambda self, *_: {"BLOCK_Q": 128, "BLOCK_K": 32, "num_warps": 8})
    monkeypatch.setattr(
        tiles, "CANDIDATES", {"BLOCK_Q": (128,), "BLOCK_K": (32, 64, 128), "num_warps": (8,), "num_stages": (3,)}
    )
    call = tiles.bench.call_of(tiles.bench.Sizes((8,), 2, 2, 16), 8)
    rows = list(tiles.measured("logsumexp", call, "cpu", 1, until=float("inf")))
    notes = {row["BLOCK_K"]: row["note"] for row in rows[1:]}
    assert rows[0]["note"] == "in use"
    assert notes == {64: "wrong: logsumexp", 32: "", 128: "RuntimeError: out of resource: shared memory"}
    assert len(list(tiles.measured("logsumexp", call, "cpu", 1, until=0.0))) == 1, "no time is left"


@pytest.fixture
def steps(tmp_path):
    """Runs gpu.sh with an interpreter and a sanitizer that write down what they are told to run."""
    told = tmp_path / "told"
    for name in ("python", "compute-sanitizer"):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>{told}\necho done by {name}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {"PYTHON": str(tmp_path / "python"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def call(*words):
        done = subprocess.run(
            [FOLDER / "gpu.sh", "-o", tmp_path / "out", *words],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        return done, told.read_text().splitlines() if told.exists() else []

    return call


def test_every_step_runs_a_command_that_there_is(steps, tmp_path):
    from headatlas.__main__ import _Parser
    from headatlas.probes.verbs import bench_arguments

    names = "install quick tests sanitize kernels grouped tiles model long".split()
    done, told = steps(*names)
    assert done.returncode == 0, done.stderr
    for line in told:
        words = line.split()
        if "headatlas" in words:
            parser = _Parser(prog="headatlas bench")
            bench_arguments(parser)
            assert parser.parse_args(words[words.index("bench") + 1 :]).device == "cuda"
        for word in [word for word in words if word.endswith(".py")]:
            assert (FOLDER.parent / word).exists(), word
    assert told[0] == "python -m pip install -q --no-deps --no-build-isolation -e ."
    assert told[-1].endswith(f"summary.py {tmp_path / 'out'}")
    ends = script("summary").ends(tmp_path / "out")
    assert [line.split()[0] for line in ends] == [
        "install", "quick", "tests", "memcheck", "racecheck", "kernels", "grouped", "tiles", "model", "long",
    ]  # fmt: skip
    assert all(" exit 0, " in line and line.endswith("done by " + line_by(line)) for line in ends)
    assert {name for name in names if f"| `{name}` |" in (FOLDER / "README.md").read_text()} == set(names)


def line_by(line):
    return "compute-sanitizer" if line.startswith(("memcheck", "racecheck")) else "python"


def test_an_unknown_step_runs_nothing(steps):
    done, told = steps("install", "kernel")
    assert done.returncode == 2
    assert "usage: benchmarks/gpu.sh [-o FOLDER] install|quick|tests" in done.stderr
    assert told == []


def test_the_sanitized_tests_are_a_few():
    chosen = next(line for line in (FOLDER / "gpu.sh").read_text().splitlines() if "local chosen=" in line)
    words = ["-m", "gpu", "-k", chosen.split('"')[1], "--collect-only", "tests/kernels/test_gpu.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words], capture_output=True, text=True,
        cwd=FOLDER.parent, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(found) == 6, done.stdout


def test_the_summary_has_ratios_and_memory(tmp_path):
    rows = [
        {"provider": "forward", "ms": 10.0, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0, "peak_mb": 100.0},
        {"provider": "usual", "ms": 13.0, "ratio": 1.3, "ratio_low": 1.2, "ratio_high": 1.4, "peak_mb": 350.0},
        {"provider": "maps", "note": "not run: holds 9.0 GB"},
    ]
    (tmp_path / "model").mkdir()
    frame = pd.DataFrame(rows).assign(length=32768, device="a card")
    frame.to_parquet(tmp_path / "model/bench.parquet")
    said = [" ".join(line.split()) for line in script("summary").tables(tmp_path)]
    assert said == [
        "model, 32768 tokens, a card",
        "forward 10.00 ms ratio 1.00 (1.00, 1.00) 100 MB (+0)",
        "usual 13.00 ms ratio 1.30 (1.20, 1.40) 350 MB (+250)",
        "maps not run: holds 9.0 GB",
    ]
