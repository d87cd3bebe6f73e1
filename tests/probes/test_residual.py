"""The residual stream against transformers' own hidden states, and its probes against numbers by hand."""

import pandas as pd
import pytest
import torch
from headatlas.probes.batching import batch
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.measure import measure
from headatlas.probes.residual import RESIDUAL
from headatlas.probes.worked import stream_of

from .architectures import ARCHITECTURES
from .tiny import labelled, tiny

NAMES = ("gpt2", "gpt_neox", "llama", "gemma2", "gemma3", "gpt_oss", "opt", "bert", "albert", "bloom", "gptj", "olmoe")
IDS = torch.randint(5, 90, (2, 21), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_read_as_transformers_returns_its_hidden_states(name):
    model = load((ARCHITECTURES[name].build(), None))
    found = [stats for stats in observe(model, labelled(model, IDS), {*RESIDUAL, "entropy"}) if not stats.call.heads]
    with torch.no_grad():
        hidden = model.network(input_ids=IDS, output_hidden_states=True).hidden_states
    assert [stats.layer for stats in found] == list(range(len(hidden) - 1))
    last_is_normed = name not in ("bert", "albert")
    for stats, states in zip(found, hidden[1 : -1 if last_is_normed else None], strict=False):
        size = states.abs()
        torch.testing.assert_close(stats["residual_norm"][:, 0], states.norm(dim=-1))
        torch.testing.assert_close(stats["residual_max"][:, 0], size.amax(-1))
        torch.testing.assert_close(stats["residual_median"][:, 0], size.median(-1).values)
        assert torch.equal(stats["residual_argmax"][:, 0], size.argmax(-1))


def test_encoder_and_decoder_have_streams_of_their_own():
    model = load((ARCHITECTURES["t5"].build(), None))
    batch = labelled(model, IDS, decoder_input_ids=IDS[:, :9])
    found = observe(model, batch, {"residual_norm"})
    assert [(stats.call.tower, stats.layer) for stats in found] == [
        ("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1)
    ]  # fmt: skip
    assert found[0]["residual_norm"].shape[2] == 21 and found[2]["residual_norm"].shape[2] == 9


def test_padding_has_no_state():
    model = tiny()
    real = torch.ones_like(IDS, dtype=torch.bool)
    real[1, 13:] = False
    one = all_probes()["residual_peak"]
    padded = [
        one.measure(stats).values for stats in observe(model, batch(model, IDS, attention_mask=real), {"residual_norm"})
    ]
    alone = [one.measure(stats).values for stats in observe(model, batch(model, IDS[1:, :13]), {"residual_norm"})]
    for both, single in zip(padded, alone, strict=True):
        torch.testing.assert_close(both[1], single[0])


def test_massive_activations_are_those_that_are_put_in():
    states = torch.full((1, 6, 32), 0.05)
    states[0, 0, 7], states[0, 3, 7], states[0, 4, 9] = 300.0, -150.0, 90.0
    stats = stream_of(states, RESIDUAL)
    assert stats["residual_massive"][0, 0].tolist() == [1, 0, 0, 1, 0, 0]
    assert stats["residual_argmax"][0, 0, [0, 3, 4]].tolist() == [7, 7, 9]
    one = all_probes()["massive_activations"]
    assert one.measure(stats).values.item() == 2


def test_a_layers_rows_have_no_head(tmp_path):
    model = tiny()
    run = measure(model, "residual,entropy", "random:length=30", examples=6, store=tmp_path)
    rows = run.rows("residual_norm")
    assert rows["head"].isna().all() and sorted(set(rows["layer"])) == [0, 1] and len(rows) == 12
    assert run.rows("entropy")["head"].notna().all()
    heads = run.heads("residual_peak", part="mean")
    assert heads["head"].isna().all() and (heads["n"] == 6).all() and heads["ci_low"].notna().all()
    positions = run.positions("residual_norm")
    assert positions["head"].isna().all() and len(positions["values"].iloc[0]) == 30
    assert isinstance(heads, pd.DataFrame)
