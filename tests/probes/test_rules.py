"""The pitfalls of reading attention heads, one test each: where published numbers differ and why ours are what they are."""

import dataclasses
import math

import pytest
import torch
from headatlas.data.examples import Example
from headatlas.data.frame import find_frame
from headatlas.kernels.inputs import Visibility
from headatlas.kernels.reference import reference_stats
from headatlas.kernels.stats import split_name
from headatlas.probes.batching import batch
from headatlas.probes.catalog import all_probes
from headatlas.probes.forward import observe
from headatlas.probes.loading import load
from headatlas.probes.trial import example_inputs, read

from ..data.tokenizers_offline import byte_bpe, word_level
from .architectures import ARCHITECTURES
from .oracle import eager_weights
from .tiny import HEADS, labelled, readings, tiny, tiny_network, uniform

PROBES = all_probes()
LENGTH = 70


def ids_of(count=2, length=LENGTH, seed=0):
    return torch.randint(5, 90, (count, length), generator=torch.Generator().manual_seed(seed))


def harmonic(count):
    return sum(1 / k for k in range(1, count + 1))


# 1: the BOS token


@pytest.mark.parametrize(("frame", "bos", "first", "extra"), [
    ("bos", "default", "bos", 1), ("bos", "force", "bos", 1), ("bos", "none", "rest", 0),
    ("none", "default", "rest", 0), ("none", "force", "bos", 1), ("bert", "default", "bos", 2), ("bert", "none", "rest", 1),
])  # fmt: skip
def test_bos_policy_decides_what_the_first_token_is(frame, bos, first, extra):
    """The mass on the first token is the BOS token's where there is one, and an ordinary token's where there is none."""
    model = tiny(tokenizer=word_level(frame=frame))
    made = batch(model, ["a b c d"], bos=bos)
    assert made.input_ids.shape[1] == 4 + extra
    assert made.group_names[int(made.groups[0, 0])] == first
    assert find_frame(model.tokenizer, bos=bos).length == extra
    on_first = readings(model, made, PROBES["first_token_mass"])[..., 0]
    one = PROBES["group_mass"]
    masses = readings(model, made, one)
    if first == "bos":
        torch.testing.assert_close(masses[..., one.parts.index("bos")], on_first, rtol=0, atol=1e-6)
    else:
        assert masses[..., one.parts.index("bos")].isnan().all()


def test_a_template_that_brings_its_own_bos_gets_no_second_one():
    tokenizer = word_level()
    model = tiny(tokenizer=tokenizer)
    chat = [Example(id="a", messages=({"role": "user", "content": "hi"},))]
    for bos, expected in (("default", 1), ("force", 1), ("none", 0)):
        ids = batch(model, chat, bos=bos).input_ids[0]
        assert (ids == tokenizer.bos_token_id).sum() == expected
        assert (int(ids[0]) == tokenizer.bos_token_id) == bool(expected)


def test_token_ids_with_their_own_bos_get_no_second_one():
    tokenizer = byte_bpe()
    model = tiny(tokenizer=tokenizer, vocab_size=len(tokenizer))
    made = batch(model, [Example(id="a", token_ids=(tokenizer.bos_token_id, 20, 21))])
    assert made.input_ids[0].tolist() == [tokenizer.bos_token_id, 20, 21]
    assert made.group_names[int(made.groups[0, 0])] == "bos"


# 2: padding


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma2", "gpt2"])
@pytest.mark.parametrize("name", PROBES)
def test_left_padding_equals_right_padding(name, kind):
    """The first real token is the first, padded queries count for nothing, windows and distances start at the text."""
    window = {"sliding_window": 8} if kind in ("Mistral", "Gemma2") else {}
    model = GPT2 if kind == "gpt2" else tiny(kind, **window)
    length = 60 if kind == "gpt2" else LENGTH
    ids = ids_of(1, length)
    ids[:, length // 2 :] = ids[:, : length // 2]
    values = {}
    for side in ("none", "left", "right"):
        pad = torch.zeros(1, 0 if side == "none" else 4, dtype=torch.long)
        parts = [pad, ids] if side == "left" else [ids, pad]
        whole = torch.cat(parts, dim=1)
        real = torch.cat([torch.full_like(part, part is ids) for part in parts], dim=1).bool()
        start = 4 if side == "left" else 0
        places = {"repeat": slice(start + length // 2, start + length), "padding": ~real[0]}
        known = labelled(model, whole, places, attention_mask=real)
        stats = observe(model, known, PROBES[name].needs)
        values[side] = torch.stack([PROBES[name].measure(call).values for call in stats])
        counts = [PROBES[name].measure(call).n_queries for call in stats]
        assert max(int(count.max()) for count in counts) <= length
    for side in ("left", "right"):
        torch.testing.assert_close(values[side], values["none"], rtol=2e-5, atol=2e-6, equal_nan=True)


GPT2 = load((ARCHITECTURES["gpt2"].build(), None))


def test_what_observe_collects_is_nan_at_padding():
    """A mean over what a user is handed can't be wrong unseen."""
    ids, real = ids_of(2, 30), torch.ones(2, 30, dtype=torch.bool)
    real[1, 20:] = False
    stats = observe(GPT2, batch(GPT2, ids, attention_mask=real), {"entropy", "group_mass", "received"})[0]
    assert stats.entropy[1, :, 20:].isnan().all()
    assert stats.group_mass[1, :, 20:].isnan().all()
    assert not stats.entropy[0].isnan().any()
    assert not stats.entropy[1, :, :20].isnan().any()
    assert not stats.received.isnan().any()


def test_one_text_is_one_prompt():
    model = load((GPT2.network, word_level()))
    assert len(batch(model, "the sky is blue")) == len(batch(model, ["the sky is blue"])) == 1


def test_fully_masked_rows_are_undefined_and_left_out():
    """A query of a bidirectional model with nothing to see has no entropy, instead of NaN in the mean or 0 in it."""
    inputs = example_inputs(batch=1)
    real = torch.ones(1, 90, dtype=torch.bool)
    real[:, 80:] = False
    blind = dataclasses.replace(
        inputs, visibility=Visibility(key_mask=real, rule=lambda batch, query, key: (query >= 10) | (key < 0))
    )
    reading = read(PROBES["entropy"], blind)
    assert reading.n_queries.flatten().tolist() == [80] * 4
    assert reading.values.isfinite().all()
    weights_of_ten = reference_stats(blind, frozenset({"entropy"}))["entropy"][:, :, 10:].mean(-1)
    torch.testing.assert_close(reading.values[..., 0].double(), weights_of_ten, rtol=1e-5, atol=1e-6)


# 3: the first row, and the closed forms of uniform attention


def test_uniform_attention_has_known_values():
    """With all queries zero p_ij = 1/i, so every reading has a closed form."""
    model = uniform()
    known = labelled(model, ids_of(), {"bos": [0]})
    n = LENGTH
    entropy = sum(math.log(i) for i in range(1, n + 1)) / n
    near = sum(min(1.0, 16 / i) for i in range(1, n + 1)) / n
    expected = {
        "first_token_mass": harmonic(n) / n,
        "sink_rate": 0.0,
        "entropy": entropy,
        "normalized_entropy": 1.0,
        "entropy_bound_gap": 0.0,
        "effective_keys": (n + 1) / 2,
        "mean_distance": (n - 1) / 4,
        "window_mass": near,
        "previous_token": (harmonic(n) - 1) / (n - 1),
    }
    for name, value in expected.items():
        found = readings(model, known, PROBES[name])
        torch.testing.assert_close(
            found, torch.full_like(found, value), rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    one = PROBES["group_mass"]
    found = readings(model, known, one)
    assert found[..., one.parts.index("bos")].flatten().tolist() == pytest.approx([harmonic(n) / n] * 16, abs=1e-6)
    assert found[..., one.parts.index("rest")].flatten().tolist() == pytest.approx([1 - harmonic(n) / n] * 16, abs=1e-6)


def test_uniform_attention_to_repeats_has_known_values():
    """The second copy's query i (1-based) holds its token once before: duplicate and induction mass are 1/i."""
    model = uniform()
    half = torch.arange(5, 5 + LENGTH // 2)
    known = labelled(model, torch.cat([half, half])[None], {"repeat": slice(LENGTH // 2, LENGTH)})
    second = (harmonic(LENGTH) - harmonic(LENGTH // 2)) / (LENGTH // 2)
    for name in ("duplicate_token", "induction"):
        found = readings(model, known, PROBES[name])
        torch.testing.assert_close(found, torch.full_like(found, second), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "row_one", "counted"), [
    ("first_token_mass", 1.0, LENGTH), ("entropy", 0.0, LENGTH), ("normalized_entropy", None, LENGTH - 1),
    ("previous_token", None, LENGTH - 1), ("entropy_bound_gap", None, LENGTH - 1),
])  # fmt: skip
def test_row_one(name, row_one, counted):
    """The paper's mode counts p_11 = 1 in alpha_1 and H_1 = 0 in the entropy; what is 0/0 there leaves it out."""
    model = tiny()
    one = PROBES[name]
    (stats, _) = observe(model, labelled(model, ids_of()), one.needs)
    positions, reading = one.positions(stats)[..., 0], one.measure(stats)
    first = positions[:, :, 0]
    if row_one is None:
        assert first.isnan().all()
    else:
        assert (first - row_one).abs().max() < 1e-6
    assert (~positions[:, :, 1:].isnan()).all()
    assert reading.n_queries.unique().tolist() == [counted]


def test_alpha_one_stays_between_one_over_t_and_one():
    for sharp in (0.0, 6.0, 60.0):
        found = readings(tiny(sharp=sharp), labelled(tiny(sharp=sharp), ids_of()), PROBES["first_token_mass"])
        assert found.min() >= 1 / LENGTH - 1e-6
        assert found.max() <= 1 + 1e-6


# the exact test of the sink literature: one token said 64 times


def test_one_token_repeated_is_no_sink_with_rotary_positions():
    """Identical hidden states: nothing marks the first token, so alpha_1 > 0.3 never happens (published: exactly 0)."""
    for seed in range(3):
        model = tiny(seed=seed)
        ids = ids_of(6, 1, seed=seed).expand(6, 100)
        hidden = model.network.model(input_ids=ids).last_hidden_state
        assert (hidden - hidden[:, :1]).abs().max() < 1e-4 * hidden.abs().max()
        rate = readings(model, batch(model, ids), PROBES["sink_rate"])
        assert rate.unique().tolist() == [0.0]


def test_one_token_repeated_can_be_a_sink_with_learned_positions():
    """GPT-2's first position tells itself apart: make its key attractive, and the repeated token sinks everywhere."""
    network = ARCHITECTURES["gpt2"].build()
    with torch.no_grad():
        network.transformer.wpe.weight.zero_()
        network.transformer.wpe.weight[0, 0] = 50.0
        network.transformer.wte.weight.normal_(std=1e-3)
        for block in network.transformer.h:
            block.ln_1.bias.fill_(1.0)
            width = network.config.n_embd
            block.attn.c_attn.weight[:, : 2 * width] = 0
            block.attn.c_attn.bias[:width] = 4.0
            block.attn.c_attn.bias[width : 2 * width] = 0
            block.attn.c_attn.weight[0, width : 2 * width] = 1.0
    model = load((network, None))
    ids = torch.full((2, 64), 33)
    rate = readings(model, batch(model, ids), PROBES["sink_rate"])
    assert rate[0].unique().tolist() == [1.0]
    assert readings(tiny(), batch(tiny(), ids), PROBES["sink_rate"]).unique().tolist() == [0.0]


# 4: grouped queries


def test_query_head_h_reads_key_value_head_h_over_repeats():
    """Scaling the keys of KV head 1 changes query heads 2 and 3 of four, and no others."""
    before, after = tiny_network(), tiny_network()
    with torch.no_grad():
        after.model.layers[0].self_attn.k_proj.weight[8:] *= 3
    ids = ids_of()
    values = []
    for network in (before, after):
        model = load((network, None))
        values.append(observe(model, batch(model, ids), {"entropy"})[0]["entropy"])
    change = (values[0] - values[1]).abs().amax((0, 2))
    assert change[:2].max() < 1e-6
    assert change[2:].min() > 1e-2
    for repeats in (1, 2, 4):
        inputs = example_inputs(heads=4, kv_heads=4 // repeats)
        spread = dataclasses.replace(inputs, key=inputs.key.repeat_interleave(repeats, 1), value=None)
        for name in ("entropy", "sink_rate", "group_mass"):
            left, right = read(PROBES[name], inputs).values, read(PROBES[name], spread).values
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6, equal_nan=True)


# 5: windows


def windowed(window, kind="Mistral"):
    model = tiny(kind, sliding_window=window)
    return model, labelled(model, ids_of())


@pytest.mark.parametrize(("window", "defined"), [(8, False), (63, False), (64, True), (100, True)])
def test_sink_rate_is_undefined_where_the_window_hides_the_first_token(window, defined):
    model, known = windowed(window)
    assert readings(model, known, PROBES["sink_rate"]).isnan().all() == (not defined)
    stats = observe(model, known, PROBES["sink_rate"].needs)
    expected = 64 if defined else 0
    assert {int(PROBES["sink_rate"].measure(one).n_queries.max()) for one in stats} == {expected}


def test_a_query_outside_the_window_has_no_say_on_the_first_token():
    """alpha_1 is over the queries that can see the first token: 8 of them with a window of 8, not 70 with zeros."""
    model, known = windowed(8)
    (stats, _) = observe(model, known, PROBES["first_token_mass"].needs)
    reading = PROBES["first_token_mass"].measure(stats)
    assert reading.n_queries.unique().tolist() == [8]
    expected = stats["weight_at:first"][:, :, :8].mean(-1)
    torch.testing.assert_close(reading.values[..., 0], expected)
    assert stats["weight_at:first"][:, :, 8:].abs().max() == 0


def test_normalized_entropy_counts_the_keys_a_window_shows():
    model = uniform("Mistral", sliding_window=8)
    found = readings(model, labelled(model, ids_of()), PROBES["normalized_entropy"])
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-5, atol=1e-5)
    (stats, _) = observe(model, labelled(model, ids_of()), {"entropy"})
    expected = torch.tensor([math.log(min(i, 8)) for i in range(1, LENGTH + 1)])
    assert (stats["entropy"] - expected).abs().max() < 1e-5
    assert stats["visible_keys"][0, 0].tolist() == [min(i, 8) for i in range(1, LENGTH + 1)]


def test_windowed_layers_are_told_from_full_ones():
    model = load((ARCHITECTURES["gemma3"].build(), None))
    assert [call.window for call in model.calls] == [8, 8, 8, 8, 8, None]


# 6: caps, biases, learned sinks


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "bloom", "t5", "qwen3"])
def test_entropy_is_of_the_weights_the_model_uses(name):
    """Soft-cap, learned sink, ALiBi, relative bias and query-key norms: -sum p ln p of the model's own weights."""
    network = ARCHITECTURES[name].build()
    model = load((network, None))
    inputs = {"input_ids": ids_of(2, 21)}
    if name == "t5":
        inputs["decoder_input_ids"] = ids_of(2, 9, seed=1)
    if name == "bloom":
        with torch.no_grad():
            weights = network(**inputs, output_attentions=True).attentions
    else:
        weights = [one for _, one in eager_weights(network, inputs)]
    ids = inputs.pop("input_ids")
    stats = observe(model, batch(model, ids, **inputs), {"entropy", "row_mass"})
    assert len(stats) == len(weights)
    for one, eager in zip(stats, weights, strict=True):
        eager = eager.double()
        torch.testing.assert_close(one["entropy"].double(), -torch.xlogy(eager, eager).sum(-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one["row_mass"].double(), eager.sum(-1), rtol=1e-5, atol=1e-5)


def test_a_learned_sink_takes_mass_from_the_keys_and_is_no_key():
    inputs = example_inputs()
    without = read(PROBES["group_mass"], inputs).values.nansum(-1)
    torch.testing.assert_close(without, torch.ones_like(without), rtol=1e-5, atol=1e-5)
    sunk = dataclasses.replace(inputs, sink_logits=torch.tensor([-30.0, 0.0, 2.0, 30.0]))
    with_sink = read(PROBES["group_mass"], sunk).values.nansum(-1)
    assert with_sink[:, 0].tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert (with_sink[:, 1] < 1).all()
    assert (with_sink[:, 2] < with_sink[:, 1]).all()
    assert with_sink[:, 3].max() < 1e-3
    for name in ("normalized_entropy", "effective_keys"):
        plain, beside = read(PROBES[name], inputs).values[:, 1:3], read(PROBES[name], sunk).values[:, 1:3]
        torch.testing.assert_close(beside, plain, rtol=2e-4, atol=2e-5)


def test_a_cap_below_the_logits_flattens():
    inputs = dataclasses.replace(example_inputs(), scale=6.0)
    values = [
        read(PROBES["entropy"], dataclasses.replace(inputs, softcap=cap)).values.mean().item()
        for cap in (None, 10.0, 1.0, 0.01)
    ]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(sum(math.log(i) for i in range(1, 91)) / 90, abs=1e-3)


def test_a_bias_that_is_the_same_for_a_row_changes_nothing_but_the_logits():
    inputs = example_inputs()
    shifted = dataclasses.replace(inputs, bias=torch.randn(3, 4, 90, 1).expand(3, 4, 90, 90).contiguous())
    for name, one in PROBES.items():
        if one.of_layers or any(split_name(need)[0] == "max_logit" for need in one.needs):
            continue
        left, right = read(one, inputs).values, read(one, shifted).values
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


# 9: the order of averaging


def test_sink_rate_thresholds_each_text_before_it_averages():
    """Two texts of alpha 0.9 and 0.0: the rate is 1/2, while the mean map (0.45) would say 1."""
    from headatlas.probes.worked import stats_of

    weights = torch.zeros(2, 1, 64, 64)
    weights[0, 0, :, 0] = 0.9
    weights[0, 0, torch.arange(64), torch.arange(64)] += 0.1
    weights[1, 0, torch.arange(64), torch.arange(64)] = 1.0
    found = PROBES["sink_rate"].measure(stats_of(weights, PROBES["sink_rate"].needs)).values
    assert found.flatten().tolist() == [1.0, 0.0]
    mean_map = weights.mean(0, keepdim=True)
    assert PROBES["sink_rate"].measure(stats_of(mean_map, PROBES["sink_rate"].needs)).values.item() == 1.0


@pytest.mark.parametrize(("mass", "expected"), [(19.0, 0.0), (19.2, 0.0), (19.3, 1.0)])
def test_the_threshold_is_strict_and_over_the_first_64_queries(mass, expected):
    """alpha_1 = 19.2/64 = 0.3 is not above 0.3; what later queries do does not matter."""
    from headatlas.probes.worked import stats_of

    weights = torch.zeros(1, 1, 100, 100, dtype=torch.float64)
    weights[..., 0] = mass / 64
    weights[..., 64:, 0] = 1.0
    stats = stats_of(weights, PROBES["sink_rate"].needs)
    assert PROBES["sink_rate"].measure(stats).values.item() == expected


def test_sink_rate_is_undefined_below_64_tokens():
    model = tiny()
    for length, defined in ((63, False), (64, True), (65, True)):
        found = readings(model, batch(model, ids_of(1, length)), PROBES["sink_rate"])
        assert found.isnan().all() == (not defined)


def test_sink_rate_of_a_bidirectional_model_is_not_offered():
    model = load((ARCHITECTURES["bert"].build(), None))
    stats = observe(model, batch(model, ids_of(2, 30)), PROBES["sink_rate"].needs)
    assert [PROBES["sink_rate"].applies(one) for one in stats] == [False, False]


# 12: numbers of heads


def test_heads_are_numbered_from_zero_layer_first():
    """L1H2 is the third head of the second layer: make that one uniform, and it alone changes."""
    network, changed = tiny_network(), tiny_network()
    with torch.no_grad():
        changed.model.layers[1].self_attn.q_proj.weight[16:24] = 0
    model, other = load((network, None)), load((changed, None))
    before = readings(model, labelled(model, ids_of()), PROBES["entropy"])[..., 0]
    after = readings(other, labelled(other, ids_of()), PROBES["entropy"])[..., 0]
    different = (before - after).abs().amax(1) > 1e-5
    assert different.nonzero().tolist() == [[1, 2]]
    flat = sum(math.log(i) for i in range(1, LENGTH + 1)) / LENGTH
    assert after[1, :, 2].tolist() == pytest.approx([flat, flat], rel=1e-5)
    assert before.shape == (2, 2, HEADS)


def test_look_spells_heads_the_same_way():
    from headatlas.probes.look import look

    network = tiny_network()
    with torch.no_grad():
        network.model.layers[1].self_attn.q_proj.weight[16:24] = 0
    model = load((network, word_level()))
    values = look(model, "the sky is blue", [PROBES["entropy"]])
    best = values.sort_values("value").iloc[-1]
    assert (best["place"], best["layer"], best["head"]) == ("L1H2", 1, 2)
    assert best["value"] == pytest.approx(sum(math.log(i) for i in range(1, 6)) / 5, rel=1e-5)
