"""Sparse-pattern readings against loops over float64 maps, and on maps whose class is obvious."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from headatlas.data.errors import UserError
from headatlas.kernels.reference import materialised_logits
from headatlas.kernels.stats import Call
from headatlas.probes.catalog import all_probes
from headatlas.probes.trial import example_inputs, padded_call, read
from headatlas.probes.worked import stats_of

PROBES = all_probes()
LENGTH = 650
INPUTS = dataclasses.replace(example_inputs(batch=2, length=LENGTH, seed=5), scale=1.0)


def maps(inputs, window=None):
    """Weights [batch, head, query, key] of causal attention, float64."""
    logits, visible = materialised_logits(inputs)
    if window is not None:
        visible = visible & torch.ones(LENGTH, LENGTH).triu(1 - window).bool()
    return logits.masked_fill(~visible, -torch.inf).softmax(-1).numpy()


def loop_distance(p, q):
    total = 0.0
    for left, right in ((p, q), (q, p)):
        total += sum(a * math.log(2 * a / (a + b)) for a, b in zip(left, right, strict=True) if a > 0) / 2
    return math.sqrt(total)


def loop_query_aware(weights, query, key, scale):
    n = len(weights)
    blocks = [range(start, min(n, start + 128)) for start in range(0, n, 128)]
    truth = [weights[n - 128 :, list(block)].sum(1).mean() for block in blocks]
    mean = query[n - 128 :].mean(0)
    logits = np.array([scale * mean @ key[list(block)].mean(0) for block in blocks])
    estimate = np.exp(logits - logits.max())
    distance = loop_distance(truth, estimate / estimate.sum())
    return [distance, float(distance < 0.1)]


def loop_pattern_recall(weights, seen):
    n = len(weights)
    budget = seen // 8 // 32 * 32
    rows = range(n - 64, n)
    sinks = budget // 9 if seen == n else 0

    def recall(keeps):
        return np.mean([sum(weights[i, j] for j in range(i + 1) if keeps(i, j)) for i in rows])

    a_shape = recall(lambda i, j: j < sinks or i - j < budget - sinks)
    column, slash = np.zeros(n), np.zeros(n)
    for i in rows:
        for j in range(i + 1):
            column[j] += weights[i, j]
            slash[i - j] += weights[i, j]
    vertical_slash = []
    for v, s in ((30, 800), (100, 750), (500, 700), (3500, 100)):
        count = round(budget * v / (v + s))
        columns, slashes = set(np.argsort(-column)[:count]), set(np.argsort(-slash)[: budget - count])
        vertical_slash.append(recall(lambda i, j, c=columns, s=slashes: j in c or i - j in s))
    block = []
    for first in (n - 64, n - 32):
        mass = [weights[first : first + 32, start : start + 32].sum() / 32 for start in range(0, n, 32)]
        block.append(sum(sorted(mass, reverse=True)[: budget // 32]))
    return [a_shape, max(vertical_slash), np.mean(block)]


def loop_block_truth(weights, window=None):
    n = len(weights)
    found = []
    for share in (0.1, 0.25):
        held = []
        for top in range(0, n, 64):
            first = 0 if window is None else max(0, top - window + 1) // 64 * 64
            row = [weights[top : top + 64, left : left + 64].max() for left in range(first, top + 1, 64)]
            if share * len(row) >= 1:
                held.append(sum(sorted(row)[-math.ceil(round(share * len(row), 9)) :]) / sum(row))
        found.append(np.mean(held) if held else math.nan)
    return found


def same(values, expected):
    assert values.tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6, nan_ok=True)


@pytest.mark.parametrize("name", ["query_aware", "pattern_recall", "block_truth"])
@pytest.mark.parametrize("padding", [None, "left", "right"])
def test_a_probe_is_its_definition(name, padding):
    weights = maps(INPUTS)
    inputs = INPUTS if padding is None else padded_call(INPUTS, 45, left=padding == "left")
    values = read(PROBES[name], inputs).values
    for example, head in ((0, 0), (0, 3), (1, 2)):
        own = weights[example, head]
        if name == "query_aware":
            query, key = INPUTS.query[example, head].double().numpy(), INPUTS.key[example, head // 2].double().numpy()
            same(values[example, head], loop_query_aware(own, query, key, INPUTS.scale))
        else:
            loop = loop_block_truth(own) if name == "block_truth" else loop_pattern_recall(own, LENGTH)
            same(values[example, head], loop)


@pytest.mark.parametrize("window", [300, 520])
def test_a_window_hides_blocks_and_sinks(window):
    weights = maps(INPUTS, window)[0, 0]
    call = Call(window=window, heads=1, kv_heads=1)
    for name in ("pattern_recall", "block_truth"):
        values = PROBES[name].measure(stats_of(weights, PROBES[name].needs, call=call)).values[0, 0]
        loop = loop_pattern_recall(weights, window) if name == "pattern_recall" else loop_block_truth(weights, window)
        same(values, [math.nan] * 3 if name == "pattern_recall" and window < 512 else loop)


def recalls(weights):
    one = PROBES["pattern_recall"]
    return dict(zip(one.parts, one.measure(stats_of(weights, one.needs)).values[0, 0].tolist(), strict=True))


def normalised(weights):
    weights = weights.double().tril()
    weights.diagonal()[:448] += 1e-9
    return weights / weights.sum(-1, keepdim=True)


def test_an_a_shape_is_kept_by_an_a_shape():
    n = 512
    weights = torch.zeros(n, n)
    weights[:, :7] = 4.0  # 64 keys per row: 7 sinks, 57 recent ones
    weights += torch.ones(n, n).triu(-56)
    found = recalls(normalised(weights))
    assert found["a-shape"] == pytest.approx(1)
    assert found["block"] < 0.95


def test_stripes_are_won_by_vertical_slash():
    n = 512
    weights = torch.zeros(n, n)
    weights[:, 50:400:30] = 1.0
    weights += 3 * torch.ones(n, n).triu(-130) - 3 * torch.ones(n, n).triu(-129)  # 130 tokens back
    found = recalls(normalised(weights))
    assert found["vertical-slash"] == pytest.approx(1)
    assert found["vertical-slash"] > max(found["a-shape"], found["block"]) + 0.4


def test_blocks_are_won_by_blocks():
    n = 512
    weights = torch.zeros(n, n)
    weights[448:480, 64:96] = weights[448:480, 256:288] = 1.0
    weights[480:, 128:160] = weights[480:, 352:384] = 1.0
    found = recalls(normalised(weights))
    assert found["block"] == pytest.approx(1)
    assert found["block"] > max(found["a-shape"], found["vertical-slash"]) + 0.25


def test_flat_attention_gives_every_mask_its_share():
    """2 blocks of 16, 64 columns or 64 offsets of 449 to 512 keys; columns and offsets overlap."""
    found = recalls(normalised(torch.ones(512, 512)))
    share = np.mean([64 / n for n in range(449, 513)])
    assert found["a-shape"] == pytest.approx(share)
    assert found["vertical-slash"] <= share + 1e-9
    assert found["block"] == pytest.approx(share, rel=1e-3)


def test_a_block_of_weight_zero_is_no_nan():
    """ln(p / m) of the paper's code is NaN there, and NaN < tau is False: forced vertical-slash."""
    weights = torch.eye(384)
    weights[256:] = 0.0
    weights[256:, 130] = 1.0
    one = PROBES["query_aware"]
    key = torch.zeros(384, 1)
    key[128:256] = 1.0
    values = one.measure(stats_of(weights, one.needs, queries=torch.full((384, 1), 1000.0), keys=key)).values[0, 0]
    assert values.tolist() == [0.0, 1.0]
    far = one.measure(stats_of(weights, one.needs, queries=torch.full((384, 1), -1000.0), keys=key)).values[0, 0]
    assert far.tolist() == pytest.approx([math.sqrt(math.log(2)), 0.0])


@pytest.mark.parametrize(("name", "length"), [("query_aware", 256), ("pattern_recall", 511), ("block_truth", 192)])
def test_short_prompts_are_undefined(name, length):
    reading = read(PROBES[name], example_inputs(length=length))
    assert reading.values.isnan().all()
    assert (reading.n_queries == 0).all()
    assert not read(PROBES[name], example_inputs(length=length + 1)).values.isnan().all()


def test_an_estimate_needs_queries_and_keys():
    with pytest.raises(ValueError, match="pass `queries` and `keys`"):
        stats_of(torch.eye(384), PROBES["query_aware"].needs)


def test_a_model_with_its_own_softmax_is_refused():
    from headatlas.probes.batching import batch
    from headatlas.probes.forward import observe
    from headatlas.probes.loading import load
    from headatlas.probes.measure import measure
    from transformers import BloomConfig, BloomForCausalLM

    network = BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    model = load(network)
    with pytest.raises(UserError, match="query_aware: reads tail_estimate:128, which a model with its own softmax"):
        measure(model, "query_aware", "random:length=300", examples=1)
    with pytest.raises(UserError, match=r"fewer than 512 tokens, and the longest here has 300; .* text:length=512"):
        measure(model, "pattern_recall", "random:length=300", examples=1)
    with pytest.raises(NotImplementedError, match="no values, queries or keys: tail_estimate:8 can't be had"):
        observe(model, batch(model, torch.tensor([[1, 2, 3]])), needs={"tail_estimate:8"})
