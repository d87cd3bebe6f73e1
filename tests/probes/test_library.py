"""Every probe of whole rows, keys and values against its definition, written out in loops over a float64 map."""

import math

import numpy as np
import pytest
import torch
from headatlas.kernels.inputs import AttentionInputs
from headatlas.kernels.reference import materialised_logits
from headatlas.probes.catalog import all_probes
from headatlas.probes.trial import LENGTH, NAMES, example_inputs, read

INPUTS = example_inputs(seed=3)
PROBES = all_probes()


class Head:
    """One example and head: logits z, weights p, values v, labels and tokens, as plain arrays."""

    def __init__(self, inputs: AttentionInputs, example: int, head: int) -> None:
        logits, visible = materialised_logits(inputs)
        masked = logits.masked_fill(~visible, -torch.inf)
        self.z = logits[example, head].numpy()
        self.p = masked.softmax(-1)[example, head].numpy()
        self.v = inputs.value[example, head // inputs.repeats].double().numpy()
        self.labels = [NAMES[label] for label in inputs.labels("key")[example].tolist()]
        self.tokens = inputs.key_tokens[example].tolist()
        self.n = len(self.p)
        self.alpha = [self.p[k:, k].mean() for k in range(self.n)]

    def asking(self) -> list[int]:
        return [i for i in range(self.n - 1) if self.labels[i + 1] == "answer"]


def sink_onset(h):
    return [h.p[:length, 0].mean() if length <= h.n else math.nan for length in (16, 32, 64, 128, 256, 512, 1024)]


def hidden_sinks(h):
    return [sum(h.alpha[k] > theta for k in range(1, h.n)) for theta in (5 / h.n, 0.1)]


def sink_rates(h):
    return [float(h.alpha[k] > 0.3) for k in range(8)]


def sinks_by_type(h):
    watched = range(1, h.n - 15)
    kinds = [[0], [k for k in watched if h.tokens[k] % 5 == 0], [k for k in watched if h.tokens[k] % 5]]
    return [np.mean([h.alpha[k] for k in kind]) for kind in kinds]


def distinguishability(h):
    needle = [j for j in range(h.n) if h.labels[j] == "needle"]
    found = [[], []]
    for i in h.asking():
        for part, left_out in enumerate(([], [0])):
            seen = [j for j in needle if j <= i]
            others = [j for j in range(i + 1) if j not in needle and j not in left_out]
            if not seen:
                continue
            x, y = h.p[i, seen].mean(), h.p[i, others].mean()
            found[part].append(x / (x + y))
    return [np.mean(part) for part in found]


def value_norm(h):
    norms = np.linalg.norm(h.v, axis=1)
    return [norms.mean(), norms[0]]


def last_output_norm(h):
    return [np.linalg.norm(h.p[-1] @ h.v)]


def later_sink(h):
    return [max(h.alpha[k] for k in range(1, h.n) if h.n - k >= 16)]


def sink_logit_gap(h):
    return [np.mean([h.z[i, 0] - np.mean(h.z[i, 1:i]) for i in range(2, h.n)])]


def sink_slot_mass(h):
    return [0.0]


def value_drain(h):
    norms = np.linalg.norm(h.v, axis=1)
    return [norms[0] / norms[1:].mean()]


def first_token_share(h):
    weighted = h.p * np.linalg.norm(h.v, axis=1)
    return [np.mean(weighted[:, 0] / weighted.sum(1))]


def active_dormant(h):
    on = [h.p[i, 0] for i in range(h.n) if h.labels[i] == "other"]
    off = [h.p[i, 0] for i in range(1, h.n) if h.labels[i] != "other"]
    return [np.mean(off), np.mean(on), np.mean(off) - np.mean(on)]


def sink_detector(h):
    def spread(values, over):
        values = values[values > 0]
        return -(values * np.log(values)).sum() / math.log(over)

    rows = [0.0] + [spread(h.p[i, : i + 1], i + 1) for i in range(1, h.n)]
    columns = [spread(h.p[k:, k] / h.p[k:, k].sum(), h.n - k) for k in range(h.n - 15)]
    return [np.mean(rows), max(columns)]


def retrieval(h):
    needle = [j for j in range(h.n) if h.labels[j] == "needle"]
    hits = []
    for i in h.asking():
        best = int(h.p[i].argmax())
        if best in needle and h.tokens[best] == h.tokens[i + 1]:
            hits.append(h.tokens[best])
    kinds = {h.tokens[j] for j in needle}
    return [len(set(hits) & kinds) / len(kinds), len(hits) / len(needle)]


def needle_mass(h):
    return [
        np.mean([sum(h.p[i, j] for j in range(h.n) if h.labels[j] == name) for i in h.asking()])
        for name in ("needle", "distractor")
    ]


def streaming_recall(h):
    found = []
    for sinks, recent in ((4, 16), (4, 64), (64, 256)):
        rows = [i for i in range(h.n) if i + 1 > sinks + recent]
        kept = [sum(h.p[i, j] for j in range(i + 1) if j < sinks or i - j < recent) for i in rows]
        found.append(np.mean(kept) if kept else math.nan)
    return found


def heavy_hitters(h):
    received = sorted(h.p.sum(0), reverse=True)
    return [sum(received[: math.ceil(round(h.n * share, 9))]) / h.n for share in (0.05, 0.1, 0.2)]


def persistence(h):
    found = []
    for gap in (1, 8, 32):
        shares = []
        for t in range(h.n - 64, h.n - gap):
            kept = np.argsort(-h.p[t])[:16]
            shares.append(h.p[t + gap, kept].sum() / np.sort(h.p[t + gap])[-16:].sum())
        found.append(np.mean(shares))
    return found


def gini(h):
    found = []
    for i in range(h.n - 64, h.n):
        row = h.p[i, : i + 1]
        found.append(np.abs(row[:, None] - row[None, :]).sum() / (2 * len(row)))  # the mean difference, rows sum to 1
    return [np.mean(found)]


def coverage(h):
    found = []
    for i in range(h.n - 64, h.n):
        running = np.cumsum(np.sort(h.p[i, : i + 1])[::-1])
        found.append((int((running < 0.95).sum()) + 1) / (i + 1))
    return [np.mean(found)]


def locality(h):
    low = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    high = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1 << 30]
    rows = range(h.n - 64, h.n)
    return [
        np.mean([sum(h.p[i, j] for j in range(i + 1) if a <= i - j < b) for i in rows]) if a < h.n else math.nan
        for a, b in zip(low, high, strict=True)
    ]


def windowed_distance(h):
    return [np.mean([sum(h.p[i, j] * min(i - j, 10) for j in range(i + 1)) for i in range(h.n)])]


def future_attention(h):
    return [np.mean([h.p[s + 10 : s + 101, s].mean() for s in range(h.n - 10)])]


def output_norm(h):
    return [np.linalg.norm(h.p @ h.v, axis=1).mean()]


ORACLES = (
    sink_onset, hidden_sinks, later_sink, sink_logit_gap, sink_slot_mass, value_drain, first_token_share,
    active_dormant, sink_detector, retrieval, needle_mass, streaming_recall, heavy_hitters, persistence, gini, coverage,
    locality, windowed_distance, future_attention, output_norm, sink_rates, sinks_by_type, distinguishability,
    value_norm, last_output_norm,
)  # fmt: skip


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda one: one.__name__)
def test_a_probe_is_its_definition(oracle):
    values = read(PROBES[oracle.__name__], INPUTS).values
    for example in range(2):
        for head in range(4):
            expected = oracle(Head(INPUTS, example, head))
            assert values[example, head].tolist() == pytest.approx(expected, rel=2e-5, abs=2e-6, nan_ok=True)


def test_the_mean_of_inactivity_scores_over_a_layer_is_one():
    values = read(PROBES["inactivity"], INPUTS).values
    assert values.mean(1).flatten().tolist() == pytest.approx([1.0] * 18, rel=1e-5)


def test_a_window_too_short_for_the_needle_is_not_testable():
    import dataclasses

    from headatlas.probes.trial import stats_for

    one = PROBES["retrieval"]
    stats = stats_for(one, INPUTS)
    short = dataclasses.replace(stats, call=dataclasses.replace(stats.call, window=LENGTH // 3))
    assert not one.measure(stats).values.isnan().any()
    assert one.measure(short).values.isnan().all()
