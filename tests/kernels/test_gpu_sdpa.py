"""What torch's own attention gives on each device: output and logsumexp of every operator, held to the definition."""

import dataclasses

import pytest
import torch
from headatlas.kernels import dispatch
from headatlas.kernels.inputs import Visibility
from headatlas.kernels.sdpa import attention_output, sdpa_suffices, with_logsumexp

from .blockwise import blockwise_stats
from .places import call_at, places

BOTH = frozenset({"output", "logsumexp"})
OPERATORS = {
    "flash for cpu": lambda q, k, v, causal, scale: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, scale=scale
    ),
    "flash": lambda q, k, v, causal, scale: torch.ops.aten._scaled_dot_product_flash_attention(
        q, k, v, 0.0, causal, scale=scale
    ),
    "cudnn": lambda q, k, v, causal, scale: torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, causal, False, scale=scale
    ),
    "efficient": lambda q, k, v, causal, scale: torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, None, True, 0.0, causal, scale=scale
    ),
}
on_gpu = [pytest.param(name, "cuda", 1001, marks=pytest.mark.gpu) for name in ("flash", "cudnn", "efficient")]


def exact(call):
    return blockwise_stats(call, BOTH)


def half(device):
    return torch.bfloat16 if device == "cuda" else torch.float32


@pytest.mark.parametrize("shared", [False, True], ids=["a kv head for each head", "grouped"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(("operator", "device", "length"), [("flash for cpu", "cpu", 70), *on_gpu])
def test_every_operator_gives_the_logsumexp(operator, device, length, causal, shared):
    """1,001 rows, which some pad; an operator that does not take grouped queries is skipped with what it says."""
    call = call_at(device, length, half(device), visibility=Visibility(after=0 if causal else None))
    key, value = call.key, call.value
    if not shared:
        key, value = (tensor.repeat_interleave(call.repeats, 1) for tensor in (key, value))
    try:
        output, logsumexp = OPERATORS[operator](call.query, key, value, causal, call.scale)[:2]
    except RuntimeError as error:
        if not shared:
            raise
        pytest.skip(f"{operator}: {str(error).splitlines()[0]}")
    shape = tuple(logsumexp.shape)
    logsumexp = logsumexp.squeeze(-1)[..., :length] if logsumexp.dim() == 4 else logsumexp[..., :length]
    expected = exact(call)
    assert logsumexp.shape == expected["logsumexp"].shape, f"{operator} gives {shape}"
    torch.testing.assert_close(logsumexp.double(), expected["logsumexp"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(output.double(), expected["output"], rtol=2e-2, atol=2e-2)


@places(1000, 32768)
def test_the_fused_form_finds_its_logsumexp(device, length):
    call = call_at(device, length, half(device))
    found = with_logsumexp(call)
    assert found is not None, "torch's flash operator does not take the call, or what it gives does not agree"
    for got, want in zip(found, (exact(call)[name] for name in ("output", "logsumexp"))):
        torch.testing.assert_close(got.double(), want, rtol=2e-2, atol=2e-2 if got.dim() == 4 else 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["causal", "full", "padded", "window", "cache", "turned"])
@places(1000)
def test_the_output_of_a_call(kind, dtype, device, length, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "triton" if device == "cuda" else "streaming")
    real = torch.arange(length, device=device)[None] < length - 9
    views = {
        "full": Visibility(), "padded": Visibility(key_mask=real, query_mask=real), "window": Visibility(before=12, after=0),
        "cache": Visibility(after=0, offset=length // 2),
    }  # fmt: skip
    call = call_at(device, length, dtype, visibility=views.get(kind, Visibility(after=0)), keys=length)
    if kind == "cache":
        call = dataclasses.replace(call, query=call.query[:, :, : length - length // 2], query_groups=None, query_tokens=None, targets={})  # fmt: skip
    if kind == "turned":  # as models hand it over: [batch, token, head, d_head] turned round
        call = dataclasses.replace(call, **{
            name: getattr(call, name).transpose(1, 2).contiguous().transpose(1, 2) for name in ("query", "key", "value")
        })  # fmt: skip
    assert sdpa_suffices(call) == (kind not in ("window", "cache"))
    output, _ = attention_output(call)
    want = blockwise_stats(call, frozenset({"output"}))["output"]
    torch.testing.assert_close(output.double(), want, rtol=2e-2, atol=1e-5 if dtype == torch.float32 else 2e-2)
