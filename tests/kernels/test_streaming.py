"""Every streamed statistic against its float64 definition, over every rule an attention call can have."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from headatlas.kernels import compiled, prepared
from headatlas.kernels.gather import gather_weights
from headatlas.kernels.inputs import AttentionInputs, Visibility
from headatlas.kernels.reference import reference_stats
from headatlas.kernels.stats import FIELDS, ROW, ROW_GROUP, AttentionStats, split_name
from headatlas.kernels.streaming import streaming_stats

from .cases import EVERYTHING, FINITE, cases, infinite_bias, make, number_mask, spiky

CASES = cases()
RELATIVE = {"mean_distance", "mean_square_distance", "clipped_distance", "logit_sum", "logit_sum_squares"}


def assert_equal(got, expected, relative=1e-5, absolute=1e-5):
    for name, want in expected.items():
        base, _ = split_name(name)
        have = got[name].to(want.dtype)
        limit = {"rtol": relative, "atol": 1e-6} if base in RELATIVE else {"rtol": 1e-5, "atol": absolute}
        torch.testing.assert_close(have, want, **limit, msg=lambda text, name=name: f"{name}: {text}", equal_nan=False)


@pytest.fixture(params=["streaming", "compiled"])
def stats(request):
    """Block by block, operator by operator and with its elementwise part compiled."""
    reason = compiled.obstacle(torch.device("cpu")) if request.param == "compiled" else None
    return pytest.skip(reason) if reason else partial(streaming_stats, compiled=request.param == "compiled")


@pytest.mark.parametrize("case", CASES)
def test_every_field_equals_the_definition(case, stats):
    inputs = CASES[case]
    assert_equal(stats(inputs, EVERYTHING), reference_stats(inputs, EVERYTHING))


@pytest.mark.parametrize("case", ["causal", "window", "everything", "padded encoder", "two-sided window"])
@pytest.mark.parametrize("elements", [1 << 9, 1 << 13, 1 << 16])
def test_tile_size_does_not_matter(case, elements, monkeypatch, stats):
    monkeypatch.setattr(prepared, "TILE_ELEMENTS", elements)
    inputs = CASES[case]
    assert_equal(stats(inputs, EVERYTHING), reference_stats(inputs, EVERYTHING))


@pytest.mark.parametrize("elements", [1 << 13, 1 << 20])
def test_memory_layout_of_the_model_does_not_matter(elements, monkeypatch, stats):
    """Models hand over [batch, token, head, d_head] turned round, not contiguous tensors."""
    monkeypatch.setattr(prepared, "TILE_ELEMENTS", elements)
    inputs = CASES["padded encoder"]
    turned = {
        name: getattr(inputs, name).transpose(1, 2).contiguous().transpose(1, 2) for name in ("query", "key", "value")
    }
    assert_equal(stats(dataclasses.replace(inputs, **turned), EVERYTHING), reference_stats(inputs, EVERYTHING))


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_each_field_costs_and_works_alone(name):
    inputs = CASES["everything"]
    got = streaming_stats(inputs, frozenset({name}))
    assert set(got) == {name, "visible_keys"}
    assert_equal(got, reference_stats(inputs, frozenset({name})))


def test_every_declared_field_is_tested_here():
    assert {split_name(name)[0] for name in EVERYTHING} == set(FIELDS) - {"argmax_key"}


@pytest.mark.parametrize("case", CASES)
def test_argmax_points_at_the_largest_weight(case):
    inputs = CASES[case]
    got = streaming_stats(inputs, frozenset({"argmax_key", "max_weight"}))
    weights = gather_weights(inputs, reference_stats(inputs, frozenset({"logsumexp"}))["logsumexp"].float(),
                             got["argmax_key"][:, 0, :, None])  # fmt: skip
    filled = got["visible_keys"][:, 0] > 0
    torch.testing.assert_close(weights[:, 0, :, 0][filled], got["max_weight"][:, 0][filled], rtol=1e-5, atol=1e-6)


def test_uniform_attention_has_the_numbers_on_paper():
    inputs = dataclasses.replace(make(batch=1, heads=1, kv_heads=1, queries=4), query=torch.zeros(1, 1, 4, 16))
    got = streaming_stats(inputs, EVERYTHING)
    assert got["entropy"][0, 0].tolist() == pytest.approx([math.log(n) for n in (1, 2, 3, 4)])
    assert got["mean_distance"][0, 0].tolist() == pytest.approx([0, 0.5, 1, 1.5])
    assert got["mean_square_distance"][0, 0].tolist() == pytest.approx([0, 0.5, 5 / 3, 3.5])
    assert got["received"][0, 0].tolist() == pytest.approx([25 / 12, 13 / 12, 7 / 12, 1 / 4])
    assert got["sum_squares"][0, 0].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert got["pooled_mean"].tolist() == [[[[pytest.approx(1.0)]]]]
    assert got["pooled_max"].tolist() == [[[[1.0]]]]


def test_duplicates_and_continuations_of_a_known_text():
    inputs = dataclasses.replace(
        make(batch=1, heads=1, kv_heads=1, queries=6), query=torch.zeros(1, 1, 6, 16),
        query_tokens=torch.tensor([[5, 6, 7, 5, 6, 6]]), key_tokens=torch.tensor([[5, 6, 7, 5, 6, 6]]),
    )  # fmt: skip
    got = streaming_stats(inputs, frozenset({"duplicate_mass", "induction_mass", "duplicate_keys", "induction_keys"}))
    assert got["duplicate_keys"][0, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert got["induction_keys"][0, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert got["duplicate_mass"][0, 0].tolist() == pytest.approx([0, 0, 0, 1 / 4, 1 / 5, 2 / 6])
    assert got["induction_mass"][0, 0].tolist() == pytest.approx([0, 0, 0, 1 / 4, 1 / 5, 2 / 6])


@pytest.mark.parametrize("case", CASES)
def test_rare_equal_tokens_are_listed_and_give_the_same(case):
    """The other cases have nine tokens, so that many pairs are equal and a mask is made."""
    inputs = CASES[case]
    random = torch.Generator().manual_seed(4)
    tokens = {
        side: torch.randint(-3, 90, getattr(inputs, side).shape, generator=random)
        for side in ("query_tokens", "key_tokens")
    }
    rare = dataclasses.replace(inputs, **tokens)
    needs = frozenset({"duplicate_mass", "induction_mass", "duplicate_keys", "induction_keys"})
    assert_equal(streaming_stats(rare, needs), reference_stats(rare, needs))


@pytest.mark.parametrize("shift", [0.0, 30.0, 750.0])
def test_a_common_key_mean_does_not_hurt(shift):
    inputs = make(seed=3)
    direction = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(1)), dim=0)
    shifted = dataclasses.replace(inputs, key=inputs.key + shift * direction)
    needs = frozenset({"entropy", "max_weight", "sum_squares", "group_mass", "received"})
    rounded = reference_stats(shifted, needs)
    assert_equal(streaming_stats(shifted, needs), rounded, absolute=2e-5)


def test_row_spread_bound_survives_a_common_offset(stats):
    """Shifted sums: with raw float32 sums of z and z^2 this offset breaks the bound (methods: dynamics B.5)."""
    inputs = make(batch=1, heads=1, kv_heads=1, queries=64, width=2)
    offset = dataclasses.replace(inputs, bias=torch.full((1, 1, 64, 64), 1e4))
    got = stats(offset, frozenset({"logit_sum", "logit_sum_squares"}))
    plain = reference_stats(inputs, frozenset({"logit_sum", "logit_sum_squares"}))
    torch.testing.assert_close(got["logit_sum"].double(), plain["logit_sum"], rtol=0.02, atol=0.05)
    torch.testing.assert_close(got["logit_sum_squares"].double(), plain["logit_sum_squares"], rtol=0.02, atol=0.05)


def test_a_bias_of_minus_infinity_is_a_weight_of_zero(stats):
    assert_equal(stats(infinite_bias(), FINITE), reference_stats(infinite_bias(), FINITE))


@pytest.mark.parametrize("how", ["streaming", "compiled", "reference"])
def test_a_mask_written_as_a_number_hides_as_one_of_minus_infinity_does(how):
    """-1e28 is a logit like any other, so its row is uniform; the rows of lower ones alone are empty."""
    if reason := compiled.obstacle(torch.device("cpu")) if how == "compiled" else None:
        pytest.skip(reason)
    compute = reference_stats if how == "reference" else partial(streaming_stats, compiled=how == "compiled")
    known = {
        "visible_keys": [1, 2, 3, 4, 5],
        "row_mass": [0, 0, 1, 1, 0],
        "max_weight": [0, 0, 1 / 3, 1 / 2, 0],
        "entropy": [0, 0, math.log(3), math.log(2), 0],
        "logsumexp": [-math.inf, -math.inf, -1e28, math.log(2), -math.inf],
        "max_logit": [-math.inf, -math.inf, -1e28, 0, -math.inf],
        "mean_distance": [0, 0, 1, 1, 0],
        "received": [1 / 3, 1 / 3 + 1 / 2, 1 / 3, 1 / 2, 0],
    }
    got = compute(number_mask(low=-1e28), frozenset(known))
    assert {name: got[name][0, 0].tolist() for name in known} == {name: pytest.approx(known[name]) for name in known}
    assert_equal(compute(number_mask(), FINITE), reference_stats(number_mask(), FINITE))


def test_empty_rows_hold_zero_and_say_so(stats):
    inputs = CASES["left padding"]
    got = stats(inputs, EVERYTHING)
    empty = got["visible_keys"][1, 0] == 0
    assert empty.sum() == 69
    for name, values in got.items():
        if FIELDS[split_name(name)[0]].axes in (ROW, ROW_GROUP) and name not in ("logsumexp", "max_logit"):
            assert values[1][:, empty].abs().sum() == 0, name
    assert torch.isneginf(got["logsumexp"][1, :, empty]).all()


def test_a_sink_logit_takes_its_share():
    inputs = dataclasses.replace(make(batch=1, heads=1, kv_heads=1, queries=1), sink_logits=torch.zeros(1),
                                 query=torch.zeros(1, 1, 1, 16))  # fmt: skip
    got = streaming_stats(inputs, frozenset({"row_mass", "logsumexp", "entropy"}))
    assert got["row_mass"].item() == pytest.approx(0.5)
    assert got["logsumexp"].item() == pytest.approx(math.log(2))
    assert got["entropy"].item() == pytest.approx(0.5 * math.log(2))


def test_sdpa_identities_agree():
    """An oracle that knows nothing of ours: stock SDPA with widened values and its own gradient."""
    inputs = make(batch=1, heads=2, kv_heads=2, queries=150)
    needs = frozenset({"entropy", "logsumexp", "group_mass", "received", "sum_squares"})
    got = streaming_stats(inputs, needs)

    def sdpa(value, scale=1.0):
        return torch.nn.functional.scaled_dot_product_attention(
            scale * inputs.query, inputs.key, value, is_causal=True, scale=inputs.scale
        )

    mean_key = sdpa(inputs.key)
    entropy = got["logsumexp"] - inputs.scale * (inputs.query * mean_key).sum(-1)
    torch.testing.assert_close(got["entropy"], entropy, rtol=1e-4, atol=1e-4)
    one_hot = torch.nn.functional.one_hot(inputs.key_groups.long(), 16).float()[:, None].expand(-1, 2, -1, -1)
    torch.testing.assert_close(got["group_mass"], sdpa(one_hot)[..., :3], rtol=1e-5, atol=1e-6)
    value = torch.zeros(1, 2, 150, 16, requires_grad=True)
    sdpa(value)[..., 0].sum().backward()
    torch.testing.assert_close(got["received"], value.grad[..., 0], rtol=1e-5, atol=1e-5)
    double = streaming_stats(dataclasses.replace(inputs, scale=2 * inputs.scale), frozenset({"logsumexp"}))["logsumexp"]
    torch.testing.assert_close(got["sum_squares"], torch.exp(double - 2 * got["logsumexp"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gather_equals_the_definition(case):
    inputs = CASES[case]
    reference = reference_stats(inputs, frozenset({"logsumexp", "weight_at:first", "weight_at:some"}))
    targets = torch.stack([inputs.targets["first"], inputs.targets["some"]], dim=-1)
    got = gather_weights(inputs, reference["logsumexp"], targets)
    torch.testing.assert_close(got[..., 0], reference["weight_at:first"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got[..., 1], reference["weight_at:some"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "absolute"), [(torch.bfloat16, 1e-5), (torch.float16, 1e-5), (torch.float64, 1e-5)])
def test_low_precision_inputs_are_computed_in_float32(dtype, absolute, stats):
    inputs = make(seed=5)
    rounded = dataclasses.replace(
        inputs, query=inputs.query.to(dtype), key=inputs.key.to(dtype), value=inputs.value.to(dtype)
    )
    got = stats(rounded, EVERYTHING)
    assert {value.dtype for value in got.values()} == {torch.float32, torch.long}
    assert_equal(got, reference_stats(rounded, EVERYTHING), absolute=absolute)


def test_permuting_heads_permutes_the_statistics():
    inputs = make(kv_heads=4)
    order = torch.tensor([2, 0, 3, 1])
    moved = dataclasses.replace(inputs, **{n: getattr(inputs, n)[:, order] for n in ("query", "key", "value")})
    got, base = streaming_stats(moved, EVERYTHING), streaming_stats(inputs, EVERYTHING)
    for name, values in base.items():
        torch.testing.assert_close(got[name], values[:, order], rtol=1e-5, atol=1e-5)


def test_uninitialised_memory_never_shows(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(prepared.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    inputs = CASES["everything"]
    for values in streaming_stats(inputs, EVERYTHING).values():
        assert not values.isnan().any()


def test_messages():
    with pytest.raises(KeyError, match="no attention statistic is called 'entrpy'"):
        split_name("entrpy")
    with pytest.raises(KeyError, match="expected window_mass:<width>"):
        split_name("window_mass")
    with pytest.raises(ValueError, match=r"query is \[1, 3, 5, 8\], key is \[1, 2, 5, 8\]"):
        AttentionInputs(torch.zeros(1, 3, 5, 8), torch.zeros(1, 2, 5, 8))
    stats = AttentionStats({"entropy": torch.zeros(1)}).read_by("probe 'x'", frozenset({"max_weight"}))
    with pytest.raises(KeyError, match="probe 'x' reads the statistic 'entropy' but does not declare it"):
        stats["entropy"]
    with pytest.raises(AttributeError, match="'max_weight' was not computed for probe 'x'"):
        stats.max_weight  # noqa: B018
    assert Visibility(before=3, after=0).key_range(10, 20, 100) == (7, 20)
    assert Visibility(before=3, after=0).full_range(10, 12, 7, 12) == (8, 11)


@pytest.mark.parametrize("how", ["streaming", "compiled"], indirect=False)
def test_a_small_entropy_beside_a_large_logit_keeps_its_digits(how):
    if how == "compiled" and compiled.obstacle(torch.device("cpu")):
        pytest.skip("nothing can be compiled here")
    needs = frozenset({"entropy", "row_mass"})
    found, expected = streaming_stats(spiky(), needs, compiled=how == "compiled"), reference_stats(spiky(), needs)
    assert expected["entropy"].item() == pytest.approx(6.53e-4, rel=1e-2)
    torch.testing.assert_close(found["entropy"].double(), expected["entropy"].double(), rtol=1e-3, atol=0)
    assert found["row_mass"].item() == pytest.approx(1, abs=1e-6)
