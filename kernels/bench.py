"""Speed and memory of the statistics of one attention call, against torch's own attention on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .dispatch import BACKENDS, OBSTACLES, attention_stats, choose
from .inputs import AttentionInputs, Visibility
from .reference import reference_stats
from .sdpa import with_logsumexp
from .selected import BASES
from .stats import FIELDS
from .timing import Provider, peak_and_seconds

PARAMETERS = {"window_mass": ":16", "clipped_distance": ":10", "future_average": ":10:100", "weight_at": ":first"}
EVERYTHING = frozenset(name + PARAMETERS.get(name, "") for name in FIELDS.keys() - BASES - {"output", "output_norm"})
"""Every statistic of a sweep at once: what a few rows, the values or the attention's own output give is left out."""
USUAL = frozenset({"logsumexp", "entropy", "max_weight", "sum_squares", "group_mass", "received", "weight_at:first"})
"""Rows, groups and received attention."""
LENGTHS = (512, 2048, 8192)
HEADS, WIDTH, GROUPS = 8, 64, 16
BACKENDS_OF_SDPA = {
    "cpu": (),
    "cuda": (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION),
}
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}


def call_of(length: int, device: str = "cpu") -> AttentionInputs:
    """A random causal call with 16 groups; bfloat16 on a GPU, float32 elsewhere."""
    random = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32

    def normal() -> Tensor:
        return torch.randn(1, HEADS, length, WIDTH, generator=random).to(device, dtype)

    def labels() -> Tensor:
        return torch.randint(GROUPS, (1, length), generator=random).to(device, torch.int8)

    tokens = torch.randint(5000, (1, length), generator=random).to(device)
    return AttentionInputs(
        query=normal(), key=normal(), value=normal(), scale=WIDTH**-0.5, visibility=Visibility(after=0),
        group_count=GROUPS, key_groups=labels(), query_groups=labels(), query_tokens=tokens, key_tokens=tokens,
        targets={"first": torch.zeros(1, length, dtype=torch.long, device=device)},
    )  # fmt: skip


def providers(length: int, device: str = "cpu") -> dict[str, Provider]:
    """What is compared at one length; the first is what the others are divided by."""
    inputs = call_of(length, device)
    backend, _ = choose(device)
    maps = 4.0 * HEADS * length**2
    found = {"torch SDPA forward": Provider(lambda: lambda: _sdpa(inputs))}
    for one in BACKENDS_OF_SDPA[device]:
        found[f"torch SDPA forward, {one.name.lower()}"] = Provider(lambda one=one: lambda: _sdpa_by(inputs, one))
    compiled = () if OBSTACLES["compiled"](torch.device(device)) else ("compiled",)
    for name in dict.fromkeys((backend, "streaming", *compiled)):
        for what, needs in {"usual": USUAL, "everything": EVERYTHING}.items():
            found[f"headatlas {name}, {what}"] = Provider(_ours(inputs, name, needs))
            if name == "triton":
                found[f"headatlas {name}, {what}, logsumexp given"] = Provider(partial(_fused, inputs, needs))
    found["n x n softmax, no statistics"] = Provider(lambda: lambda: _softmax(inputs), 3 * maps)
    found["n x n softmax, usual"] = Provider(lambda: lambda: _materialised(inputs), 4 * maps)
    return found


def _ours(inputs: AttentionInputs, name: str, needs: frozenset[str]) -> Callable[[], Callable[[], object]]:
    return lambda: lambda: BACKENDS[name](inputs, needs)


def _fused(inputs: AttentionInputs, needs: frozenset[str]) -> Callable[[], object]:
    """With what the model's own attention finds anyway, found beforehand."""
    _, logsumexp = cast(tuple[Tensor, Tensor], with_logsumexp(inputs))
    return lambda: BACKENDS["triton"](inputs, needs, logsumexp=logsumexp)


def _sdpa(inputs: AttentionInputs) -> Tensor:
    value = cast(Tensor, inputs.value)
    return torch.nn.functional.scaled_dot_product_attention(inputs.query, inputs.key, value, is_causal=True)


def _sdpa_by(inputs: AttentionInputs, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        return _sdpa(inputs)


def _softmax(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """(logits, weights), both [batch, head, query, key]."""
    logits = inputs.scale * inputs.query @ inputs.key.mT
    length = inputs.shape[2]
    hidden = torch.ones(length, length, dtype=torch.bool, device=logits.device).triu(1)
    logits = logits.masked_fill_(hidden, -torch.inf)
    return logits, logits.softmax(-1)


def _materialised(inputs: AttentionInputs) -> dict[str, Tensor]:
    """The usual statistics as one writes them with the maps at hand."""
    logits, weights = _softmax(inputs)
    one_hot = torch.nn.functional.one_hot(inputs.labels("key"), GROUPS).to(weights.dtype)[:, None]
    return {
        "logsumexp": logits.logsumexp(-1),
        "entropy": -torch.xlogy(weights, weights).sum(-1),
        "max_weight": weights.amax(-1),
        "sum_squares": weights.square().sum(-1),
        "group_mass": weights @ one_hot,
        "received": weights.sum(-2),
        "weight_at:first": weights[..., 0],
    }


def check(device: str = "cpu") -> None:
    """Refuse to time wrong numbers: every field of the backend in force, and of the maps, at 300 tokens."""
    inputs = call_of(300, device)
    expected = reference_stats(inputs, EVERYTHING)
    for found in (attention_stats(inputs, EVERYTHING), _materialised(inputs) if device == "cpu" else {}):
        for name in found.keys() - {"argmax_key"}:
            torch.testing.assert_close(
                found[name].double(), expected[name].double(), rtol=TOLERANCE[device], atol=TOLERANCE[device],
                msg=lambda text, name=name: f"no table is printed, {name} is wrong: {text}",
            )  # fmt: skip


def once(length: int, device: str, provider: str) -> tuple[float, float]:
    """(peak MB of one provider above its inputs, its seconds); call it in a fresh process."""
    providers(64, device)[provider].make()()
    return peak_and_seconds(providers(length, device)[provider].make(), device)


def shape_of(length: int) -> dict[str, Any]:
    """What every row of this table says of its call."""
    return {"table": "kernels", "length": length, "heads": HEADS, "d_head": WIDTH}
