"""The kernels at the lengths they are for, against the blockwise float64 definition on the same device.

On a CUDA device: pytest tests/kernels -m gpu -n 8. Without one the same tests run tiny, in Triton's interpreter.
"""

import dataclasses
import math

import pytest
import torch
from headatlas.kernels import dispatch
from headatlas.kernels.inputs import Visibility
from headatlas.kernels.reference import materialised_logits
from headatlas.kernels.stats import FIELDS, ROW, ROW_GROUP, split_name
from headatlas.kernels.streaming import streaming_stats
from headatlas.kernels.triton_stats import Launch, obstacle, triton_stats

from .blockwise import blockwise_stats, queries_of
from .cases import EVERYTHING, lengths_mask
from .places import call_at, places
from .test_streaming import RELATIVE

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
named = pytest.mark.parametrize
ROWS = frozenset(name for name in EVERYTHING if FIELDS[split_name(name)[0]].axes in (ROW, ROW_GROUP))
ONE_SWEEP = frozenset(name for name in ROWS if ":" not in name) | {"argmax_key", "clipped_distance:10"}
BANDS = frozenset(name for name in EVERYTHING if split_name(name)[0] in ("window_mass", "future_average"))
SOME = frozenset(
    {"logsumexp", "entropy", "row_mass", "group_mass", "mean_distance", "window_mass:16", "received", "pooled_mean", "pooled_max",
     "future_average:10:100", "received_by_group", "received_entropy", "output"}
)  # fmt: skip
"""A field of every kernel and kind."""


def assert_equal(got, expected, call):
    """Sums are float32: their last digits go with the root of how many there are; `output` also has weights rounded."""
    many = max(1.0, math.sqrt(call.shape[3] / 1024))
    rounded = call.query.dtype != torch.float32
    for name, want in expected.items():
        base = split_name(name)[0]
        if base == "argmax_key":
            continue
        relative, absolute = 1e-5 * many, (2e-6 if base in RELATIVE else 1e-5) * many
        if rounded and base in ("output", "output_norm"):
            relative = absolute = 1e-2
        torch.testing.assert_close(
            got[name].to(want.dtype), want, rtol=relative, atol=absolute, equal_nan=False,
            msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.fixture
def sweeps(monkeypatch):
    """Whether each sweep was given a logsumexp, in order."""
    seen, sweep = [], Launch.sweep
    monkeypatch.setattr(
        Launch, "sweep", lambda self, names, given: seen.append(given is not None) or sweep(self, names, given)
    )
    return seen


@named("dtype", DTYPES, ids=str)
@places(1000, 8192, 32768, tiny=130)
def test_every_field_at_every_length(device, length, dtype, sweeps):
    call = call_at(device, length, dtype)
    needs = EVERYTHING if device == "cuda" or dtype == torch.float32 else SOME
    assert_equal(triton_stats(call, needs), blockwise_stats(call, needs), call)
    assert sweeps == ([False, True, True] if needs == EVERYTHING else [False, True])


@named("dtype", DTYPES, ids=str)
@places(1000, 8192, 32768)
def test_rows_alone_at_every_length(device, length, dtype, sweeps):
    call = call_at(device, length, dtype)
    assert_equal(triton_stats(call, ONE_SWEEP), blockwise_stats(call, ONE_SWEEP), call)
    assert sweeps == [False]


@named("dtype", DTYPES, ids=str)
@places(1000, 32768)
def test_a_given_logsumexp_leaves_one_pass(device, length, dtype, sweeps):
    call, needs = call_at(device, length, dtype), (ONE_SWEEP | SOME if device == "cuda" else SOME)
    expected = blockwise_stats(call, needs)
    assert_equal(triton_stats(call, needs, logsumexp=expected["logsumexp"].float()), expected, call)
    assert sweeps == [True]


@places(1000, 32768)
def test_bands_alone(device, length):
    call = call_at(device, length, torch.bfloat16 if device == "cuda" else torch.float32)
    needs = BANDS | {f"future_average:{length // 2}:{length}", f"window_mass:{length}"}
    assert_equal(triton_stats(call, needs), blockwise_stats(call, needs), call)


def rules(device, length):
    """One call per rule: half precision on a GPU."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    short = [length, length * 2 // 3]
    right, left = lengths_mask(short, length), lengths_mask(short, length, left=True)
    heads = 4 if device == "cuda" else 2

    def one(**options):
        return lambda: call_at(device, length, dtype, **options)

    return {
        "full": one(visibility=Visibility()),
        "window": one(visibility=Visibility(before=length // 5, after=0)),
        "narrow window": one(visibility=Visibility(before=3, after=0)),
        "two-sided window": one(visibility=Visibility(before=length // 7, after=length // 9)),
        "right padding": one(batch=2, visibility=Visibility(after=0, query_mask=right)),
        "left padding": one(batch=2, visibility=Visibility(after=0, key_mask=left, query_mask=left)),
        "padded encoder": one(batch=2, visibility=Visibility(key_mask=right, query_mask=right)),
        "padding and window": one(
            batch=2, visibility=Visibility(before=length // 5, after=0, key_mask=left, query_mask=left)
        ),
        "cache": one(queries=length // 3, keys=length, visibility=Visibility(after=0, offset=length - length // 3)),
        "softcap": one(softcap=1.5),
        "sinks": one(sink_logits=lambda normal: 2 * normal(heads)),
        "huge sinks": one(sink_logits=torch.tensor([200.0, -200.0, 0.0, 90.0][:heads])),
        "bias": one(bias=lambda normal: normal(1, heads, length, length)),
        "bias of one head": one(bias=lambda normal: normal(1, 1, length, length)),
        "many groups": one(groups=16),
        "all together": one(
            batch=2, visibility=Visibility(before=length // 4, after=0, key_mask=left, query_mask=left), softcap=2.0,
            sink_logits=lambda normal: normal(heads), bias=lambda normal: normal(1, heads, length, length),
        ),
    }  # fmt: skip


@named("rule", rules("cpu", 70))
@places(1000, 4096)
def test_every_rule(rule, device, length):
    call = rules(device, length)[rule]()
    needs = EVERYTHING | {"argmax_key"} if device == "cuda" else SOME
    assert_equal(triton_stats(call, needs), blockwise_stats(call, needs), call)
    assert_equal(triton_stats(call, needs & ROWS), blockwise_stats(call, needs & ROWS), call)


@named(("heads", "kv_heads"), [(8, 8), (8, 2), (8, 1), (6, 2)])
@places(1000, 8192, tiny=20)
def test_grouped_queries(heads, kv_heads, device, length):
    call = call_at(
        device, length, torch.bfloat16 if device == "cuda" else torch.float32, heads=heads, kv_heads=kv_heads
    )
    assert_equal(triton_stats(call, SOME), blockwise_stats(call, SOME), call)
    assert_equal(triton_stats(call, ONE_SWEEP), blockwise_stats(call, ONE_SWEEP), call)


@named("dtype", [torch.bfloat16, torch.float32], ids=str)
@named("width", [16, 40, 64, 72, 80, 96, 128, 136, 192, 256])
@places(500, tiny=20)
def test_every_width(width, dtype, device, length):
    call = call_at(device, length, dtype, width=width)
    if device == "cuda" and dtype == torch.float32 and width > 128:
        assert "wide in torch.float32, more than 128" in str(obstacle(call))
        return
    assert_equal(triton_stats(call, SOME), blockwise_stats(call, SOME), call)
    assert_equal(triton_stats(call, ONE_SWEEP), blockwise_stats(call, ONE_SWEEP), call)


@places(131072, tiny=130)
def test_groups_share_out_the_whole_row(device, length):
    """Tensor cores cut off what they add up: carried over all keys, it would come to 3e-4 here."""
    call = call_at(device, length, torch.bfloat16)
    got = triton_stats(call, frozenset({"group_mass", "row_mass"}))
    torch.testing.assert_close(got["group_mass"].sum(-1), got["row_mass"], rtol=2e-5, atol=0)
    torch.testing.assert_close(got["row_mass"], torch.ones_like(got["row_mass"]), rtol=2e-5, atol=0)


@places(1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 255, tiny=17)
def test_lengths_around_blocks(device, length):
    call = call_at(device, length, torch.bfloat16)
    assert_equal(triton_stats(call, EVERYTHING), blockwise_stats(call, EVERYTHING), call)


@places(1000, 8192)
def test_argmax_points_at_a_largest_logit(device, length):
    call = call_at(device, length, torch.bfloat16 if device == "cuda" else torch.float32)
    last = queries_of(call, length - 64, length)
    logits, visible = materialised_logits(last)
    logits = logits.masked_fill(~visible, -torch.inf)
    for needs in ({"argmax_key", "max_logit"}, {"argmax_key", "max_logit", "received"}):
        chosen = triton_stats(call, frozenset(needs))["argmax_key"][:, :, -64:, None]
        torch.testing.assert_close(logits.gather(-1, chosen)[..., 0], logits.amax(-1), rtol=0, atol=1e-5)


@named("rule", ["full", "window", "left padding", "all together"])
@places(1000, 8192, tiny=40)
def test_the_same_bits_every_time(rule, device, length):
    call, needs = rules(device, length)[rule](), EVERYTHING | {"argmax_key"} if device == "cuda" else SOME
    first = triton_stats(call, needs)
    for _ in range(20 if device == "cuda" else 1):
        again = triton_stats(call, needs)
        assert [name for name in first if not torch.equal(first[name], again[name])] == []


@named("rule", ["full", "narrow window", "left padding", "cache", "all together"])
@places(1000, 3000, tiny=40)
def test_no_value_is_left_unwritten(rule, device, length, monkeypatch):
    """Memory that torch hands out is NaN here, whole numbers -77."""
    call, needs = rules(device, length)[rule](), EVERYTHING | {"argmax_key"} if device == "cuda" else SOME
    expected, empty = blockwise_stats(call, needs), torch.empty

    def spoilt(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(math.nan) if made.is_floating_point() else made.fill_(-77)

    if device == "cuda":  # also what is allocated inside torch's own operators
        torch.cuda.empty_cache()
        blocks = [torch.full((1 << size,), math.nan, device=device) for size in range(9, 28)]
        del blocks
    monkeypatch.setattr(torch, "empty", spoilt)
    assert_equal(triton_stats(call, needs), expected, call)
    assert_equal(triton_stats(call, needs & ROWS), {name: expected[name] for name in needs & ROWS}, call)


@places(131072, tiny=40)
def test_places_beyond_two_to_the_31(device, length):
    """On a GPU queries have 2.7 billion elements: the last head of the last example is as it is alone."""
    batch, heads, width = (5, 32, 128) if device == "cuda" else (2, 2, 16)
    made = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    call = call_at(device, 8, dtype, batch=batch)
    big = {
        name: torch.randn(batch, heads, length, width, generator=made, device=device, dtype=dtype)
        for name in ("query", "key", "value")
    }
    groups = torch.randint(3, (batch, length), generator=made, device=device).to(torch.int8)
    call = dataclasses.replace(
        call, **big, key_groups=groups, query_groups=groups, query_tokens=None, key_tokens=None, targets={}
    )
    one = dataclasses.replace(
        call, **{name: tensor[-1:, -1:].clone() for name, tensor in big.items()}, key_groups=groups[-1:],
        query_groups=groups[-1:],
    )  # fmt: skip
    needs = frozenset({"entropy", "group_mass", "output"})
    whole, alone = triton_stats(call, needs), triton_stats(one, needs)
    for name in needs:
        torch.testing.assert_close(whole[name][-1:, -1:], alone[name], rtol=1e-6, atol=1e-6)
    del call, big, whole
    assert_equal(
        {name: value[:, :, -256:] for name, value in alone.items()},
        blockwise_stats(queries_of(one, max(0, length - 256), length), needs), one,
    )  # fmt: skip


@named("dtype", [torch.bfloat16, torch.float32], ids=str)
@places(2000, tiny=130)
def test_streaming_on_the_device(device, length, dtype):
    for rule in ("causal", "left padding", "all together"):
        call = call_at(device, length, dtype) if rule == "causal" else rules(device, length)[rule]()
        got, needs = streaming_stats(call, EVERYTHING), EVERYTHING
        assert {value.device.type for value in got.values()} == {device}
        expected = blockwise_stats(call, needs)
        assert_equal(got, expected, dataclasses.replace(call, query=call.query.float(), key=call.key.float()))


@places(1000, tiny=20)
def test_triton_is_what_a_device_gets_and_it_compiles(device, length, monkeypatch, recwarn):
    if device == "cpu":
        monkeypatch.setenv(dispatch.VARIABLE, "triton")
    else:
        monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    monkeypatch.setattr(dispatch, "_broken", set())
    monkeypatch.setattr(dispatch, "streaming_stats", lambda *_: pytest.fail("streamed"))
    call = call_at(device, length, torch.bfloat16 if device == "cuda" else torch.float32)
    assert dispatch.choose(device)[0] == "triton"
    assert_equal(dispatch.attention_stats(call, SOME), blockwise_stats(call, SOME), call)
    assert [str(one.message) for one in recwarn if issubclass(one.category, RuntimeWarning)] == []
