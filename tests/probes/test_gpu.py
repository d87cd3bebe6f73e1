"""Models on a device against the same models on a CPU: what is measured, and edits with their columns."""

import copy
import math
import os

import pytest
import torch
from headatlas.kernels import dispatch
from headatlas.probes.bench import USUAL_PROBES
from headatlas.probes.catalog import all_probes
from headatlas.probes.edits.edit import Edit
from headatlas.probes.forward import edited, observe
from headatlas.probes.loading import load

from .tiny import labelled, tiny_network

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
HEADS = ["L0H1", "L1H0", "L1H3"]
EDITS = {
    "zero": Edit("zero", HEADS),
    "block": Edit("block", HEADS, from_group="needle"),
    "block everywhere": Edit("block", from_group="first"),
    "block all others": Edit("block", HEADS, from_group="not:needle+first"),
    "boost": Edit("boost", HEADS, from_group="needle", amount=2.5),
    "temperature": Edit("temperature", HEADS, amount=1.7),
    "uniform": Edit("uniform", HEADS),
    "mask": Edit("mask", HEADS, sinks=2, recent=3),
    "streaming": Edit("streaming", HEADS, sinks=2, recent=3),
    "redistribute": Edit("redistribute", HEADS, from_group="first", to_group="needle", amount=0.6),
    "act": Edit("act", HEADS, amount=0.4, threshold=0.05),
    "force": Edit("force", HEADS, from_group="user", to_group="needle"),
}
NEEDS = frozenset(
    {"entropy", "received", "induction_mass", "mean_distance", "weight_at:first", "group_mass", "window_mass:16", "output_norm",
     "pooled_max", "tail_weights:4"}
)  # fmt: skip


def pair(device, dtype=torch.float32, kind="Llama", **changes):
    """The same model on a CPU in float32, and on the device."""
    network = tiny_network(kind, sharp=3.0, **changes)
    there = torch.nn.Module.to(copy.deepcopy(network), torch.device(device), dtype)
    return load((network, None)), load((there, None))


def prompts(model, length=70, batch=2):
    ids = torch.randint(3, 99, (batch, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :9] = 0  # padding on the left
    return labelled(model, ids, {"needle": slice(20, 25), "user": slice(40, 43)}, attention_mask=mask)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma2", "GptOss", "Qwen3"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_model_is_measured_as_on_a_cpu(kind, device):
    changes = {"sliding_window": 16} if kind in ("Mistral", "Gemma2", "GptOss") else {}
    here, there = pair(device, kind=kind, **changes)
    expected, got = (observe(model, prompts(model), NEEDS) for model in (here, there))
    assert len(expected) == len(got) == 2
    for one, other in zip(expected, got, strict=True):
        for name in NEEDS:
            torch.testing.assert_close(
                other[name].cpu().float(), one[name].float(), rtol=1e-3, atol=1e-4, equal_nan=True
            )


@pytest.mark.parametrize("device", DEVICES)
def test_every_probe_reads_a_model_in_half_precision(device):
    """bfloat16 where there is a GPU, where the fused form is taken: the first layer's readings stay near."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    here, there = pair(device, dtype, head_dim=64)
    probes = [all_probes()[name] for name in USUAL_PROBES]
    needs = frozenset().union(*(one.needs for one in probes))
    expected, got = (observe(model, prompts(model), needs)[0] for model in (here, there))
    for one in probes:
        torch.testing.assert_close(
            one.measure(got).values.cpu().float(), one.measure(expected).values.float(), rtol=0.05, atol=0.05, equal_nan=True
        )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
def test_the_fused_form_takes_one_sweep_a_layer(device, monkeypatch):
    Launch = pytest.importorskip("headatlas.kernels.triton_stats").Launch
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if device == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            pytest.skip("Triton's interpreter is chosen before Triton is imported: set TRITON_INTERPRET=1")
        monkeypatch.setenv(dispatch.VARIABLE, "triton")
    given, sweep = [], Launch.sweep
    monkeypatch.setattr(
        Launch, "sweep", lambda self, names, lse: given.append(lse is not None) or sweep(self, names, lse)
    )
    _, there = pair(device, dtype, head_dim=64)
    ids = torch.randint(3, 99, (1, 150), generator=torch.Generator().manual_seed(1))
    given.clear()
    fused = observe(there, labelled(there, ids), NEEDS)
    assert given == [True, True]
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    for one, other in zip(fused[:1], observe(there, labelled(there, ids), NEEDS)[:1]):
        for name in NEEDS:
            torch.testing.assert_close(one[name].double(), other[name].double(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("device", DEVICES)
def test_an_edit_is_what_it_is_on_a_cpu(name, device):
    here, there = pair(device)
    expected, got = (edited(model, prompts(model), [EDITS[name]]).logits.cpu() for model in (here, there))
    real = prompts(here).query_mask
    torch.testing.assert_close(got[real], expected[real], rtol=1e-3, atol=1e-3)
    plain = edited(here, prompts(here), []).logits
    assert (expected - plain)[real].abs().max() > 1e-2, "the edit does something"
    expected, got = (observe(model, prompts(model), NEEDS, edits=[EDITS[name]]) for model in (here, there))
    for one, other in zip(expected, got, strict=True):
        for field in NEEDS:
            torch.testing.assert_close(
                other[field].cpu().float(), one[field].float(), rtol=1e-3, atol=1e-3, equal_nan=True
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["block", "block everywhere", "block all others", "boost", "force"])
@pytest.mark.parametrize("device", DEVICES)
def test_an_edit_in_half_precision_stays_near(name, dtype, device):
    here, there = pair(device, dtype, head_dim=64)
    real = prompts(here).query_mask
    expected, got = (edited(model, prompts(model), [EDITS[name]]).logits.cpu().float() for model in (here, there))
    assert got[real].isfinite().all()
    difference = (got - expected)[real].abs().max() / expected[real].abs().max()
    assert difference < 0.15


@pytest.mark.parametrize(("device", "length"), [("cpu", 40), pytest.param("cuda", 16384, marks=pytest.mark.gpu)])
def test_an_edited_forward_holds_no_map(device, length):
    """Queries and keys with two more columns stay with flash attention: a map of one head alone is 537 MB."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    _, there = pair(device, dtype, head_dim=64, max_position_embeddings=length)
    ids = torch.randint(3, 99, (1, length), generator=torch.Generator().manual_seed(1))
    made = labelled(there, ids, {"needle": slice(20, 25)})
    for name in ("block", "boost", "block everywhere"):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        found = edited(there, made, [EDITS[name]], every_token=False)
        assert found.logits.shape == (1, 1, 99)
        assert math.isfinite(found.logits.float().abs().max().item())
        if device == "cuda":
            assert torch.cuda.max_memory_allocated() - before < 2 * length**2
