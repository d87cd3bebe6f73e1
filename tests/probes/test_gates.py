"""DuoAttention's gates: a model with one head that must look back keeps that head's gate open."""

import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.probes.gates import NAME, Settings, _rate, _streaming_mask, gates
from headatlas.probes.loading import load

FEW = Settings(steps=30, folds=2)


def test_what_a_streaming_head_sees():
    seen = _streaming_mask(6, 1, 2)
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]


def test_the_rate_ramps_over_the_first_and_last_fifth():
    assert [round(_rate(share), 3) for share in (0.0, 0.1, 0.2, 0.5, 0.9, 0.999)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.1]


def test_gates_stay_open_where_the_answer_is_read(tmp_path):
    model = load("organism:pico-lm")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    run = gates(model, "secrets:lengths=128", settings=FEW, examples=8, store=tmp_path)
    heads = run.heads(NAME).set_index(["layer", "head"])["mean"]
    assert heads.loc[1].min() > 0.9 and heads.drop(1, level="layer").min() < 0.7
    assert heads.between(0, 1).all() and len(heads) == 48
    folded = run.kv_heads(NAME)
    assert len(folded) == 24 and set(folded["n"]) == {2}
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.network.parameters())
    assert gates(model, "secrets:lengths=128", settings=FEW, examples=8, store=tmp_path).id == run.id
    other = gates(model, "secrets:lengths=128", settings=Settings(steps=1, folds=2), examples=8, store=tmp_path)
    assert other.id != run.id


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        ("text:length=64", FEW, "gates are trained on answers, and 8 of 8 prompts of"),
        ("secrets:lengths=128", Settings(recent=200), "expected prompts of 205 to 4096 tokens"),
        ("secrets:lengths=128", Settings(folds=9), "clusters of prompts don't make 9 folds"),
        ("secrets:lengths=128", Settings(steps=0), "expected folds, steps and recent of 1 or more"),
    ],
)
def test_what_can_not_be_trained_is_refused(tmp_path, data, settings, said):
    with pytest.raises(UserError, match=said):
        gates(load("organism:pico-lm"), data, settings=settings, examples=8, store=tmp_path)
