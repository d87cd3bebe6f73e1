"""The random models of the bench, and its rows over one of them."""

import json
from dataclasses import replace

import headatlas
import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.kernels import bench as kernels
from headatlas.probes import bench as module
from headatlas.probes.bench import bench, model_providers
from headatlas.probes.random_models import RANDOM_MODELS, check_fits

TINY = replace(RANDOM_MODELS["llama-8b"], layers=2, heads=4, kv_heads=2, vocabulary=60, feed_forward=40)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(RANDOM_MODELS, "llama-8b", TINY)


@pytest.fixture
def quick(monkeypatch):
    """Numbers unchecked, memory unmeasured: no process is started."""
    monkeypatch.setattr(kernels, "check", lambda sizes, device: None)
    monkeypatch.setattr(module, "_alone", lambda *words: (1.0, 2.0))


def test_the_large_model_is_made_where_it_runs():
    model = RANDOM_MODELS["llama-8b"].make(128, 131072, "meta")
    parameters = list(model.network.parameters())
    assert sum(one.numel() for one in parameters) == 7_241_732_096
    assert {(one.dtype, one.device.type) for one in parameters} == {(torch.bfloat16, "meta")}
    assert {one.dtype for one in model.network.buffers()} == {torch.float32}, "rotary angles lose nothing"
    config = model.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (32, 32, 8)
    assert (config.hidden_size, config.head_dim, config.intermediate_size) == (4096, 128, 14336)
    assert model.max_length == 131072


def test_gpt2_stays_what_it_was():
    model = RANDOM_MODELS["gpt2"].make(16, 64)
    assert (model.dtype, model.config.n_embd, model.config.n_layer, model.max_length) == ("float32", 192, 12, 64)


def test_every_forward_of_the_model_table_runs(tiny):
    made = model_providers("model", "llama-8b", 16, 70)
    names = [name for name in made if "TransformerLens" not in name]
    assert names == [
        "forward", "forward with usual probes", "forward with every probe", "forward with every statistic",
        "forward with usual probes and what is read off", "forward with every probe and what is read off",
        "output_attentions=True",
    ]  # fmt: skip
    assert made["output_attentions=True"].expected_bytes == 4 * 2 * 4 * 70**2
    for name in names:
        made[name].make()()
    assert made["forward"].make()().logits.shape == (1, 1, 60), "the last token's logits alone"


def test_every_forward_of_the_edits_table_runs(tiny):
    for one in model_providers("edits", "llama-8b", 16, 30).values():
        one.make()()


def test_the_table_of_a_model_is_written_row_by_row(tiny, quick, tmp_path, monkeypatch):
    written = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda frame, folder: written.append(len(frame)) or write(frame, folder))
    frame = bench(["model"], model="llama-8b", widths=[16], lengths=[20, 30], repeats=1, out=tmp_path)
    assert written == [len(frame) // 2, len(frame)]
    assert set(frame["heads"]) == {8}
    assert set(frame["ratio"].dropna()) == {1.0}
    assert (tmp_path / "bench.md").read_text().count("forward with usual probes |") == 2


def test_the_kernels_table_takes_heads_and_widths(quick):
    frame = bench(["kernels"], lengths=[40], heads=4, kv_heads=2, widths=[8, 16], repeats=1)
    assert sorted(set(zip(frame["heads"], frame["kv_heads"], frame["d_head"]))) == [(4, 2, 8), (4, 2, 16)]
    with pytest.raises(UserError, match="expected a number of kv heads that divides 4 heads, got 3"):
        bench(["kernels"], heads=4, kv_heads=3)


def test_a_model_that_the_memory_does_not_hold_is_refused():
    assert RANDOM_MODELS["llama-8b"].weights(128) == 7_241_465_856
    check_fits("gpt2", None, lambda: 1e9)
    check_fits("llama-8b", None, lambda: None)
    with pytest.raises(UserError, match=r"takes 29\.0 GB on a CPU, this machine has 20\.0 GB free"):
        check_fits("llama-8b", None, lambda: 2e10)


def test_the_command_line_names_the_model(tiny, quick, capsys):
    from headatlas.__main__ import main

    words = "bench model --model llama-8b --lengths 20 --widths 16 --repeats 1 --json"
    assert main(words.split()) == 0
    assert json.loads(capsys.readouterr().out)[0]["provider"] == "forward"
    assert main(["bench", "--model", "llama"]) == 2
    assert headatlas.bench is bench
