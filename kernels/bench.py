"""Speed and memory of the statistics of one attention call, against torch's own attention on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
ROWS = frozenset(
    {
        "logsumexp", "max_logit", "max_weight", "argmax_key", "row_mass", "entropy", "sum_squares", "mean_distance",
        "mean_square_distance", "clipped_distance:10", "window_mass:16", "visible_keys", "group_mass",
    }
)  # fmt: skip
"""Twelve statistics of rows, and the mass of each group."""
KEYS = ROWS | {"received"}
BLOCKS = KEYS | {"future_average:10:100", "pooled_mean", "pooled_max"}
GROUPS = 16
SDPA = "torch SDPA forward"
BACKENDS_OF_SDPA = {
    "cpu": (),
    "cuda": (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION),
}
AGAINST = {
    "cpu": {},
    "cuda": {
        "over_flash": f"{SDPA}, {SDPBackend.FLASH_ATTENTION.name.lower()}",
        "over_cudnn": f"{SDPA}, {SDPBackend.CUDNN_ATTENTION.name.lower()}",
    },
}
"""Columns of further ratios."""
TOLERANCE = {"cpu": 1e-4, "cuda": 1e-3}
CHECKED = 300
"""Tokens of the call whose numbers are checked."""


@dataclass(frozen=True)
class Sizes:
    """What a table of calls is made with, and how long they are."""

    lengths: tuple[int, ...]
    heads: int
    kv_heads: int
    width: int

    def shape(self, length: int) -> dict[str, Any]:
        """What every row of this table says of its call."""
        grouped = {} if self.kv_heads == self.heads else {"kv_heads": self.kv_heads}
        return {"table": "kernels", "length": length, "heads": self.heads, **grouped, "d_head": self.width}


SIZES = {"cpu": Sizes((512, 2048, 8192), 8, 8, 64), "cuda": Sizes((8192, 32768, 131072), 32, 32, 128)}
"""By device; heads on a GPU are those of a model of 8 billion weights."""


def call_of(sizes: Sizes, length: int, device: str = "cpu") -> AttentionInputs:
    """A random causal call with 16 groups; bfloat16 on a GPU, float32 elsewhere."""
    random = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32

    def normal(heads: int) -> Tensor:
        return torch.randn(1, heads, length, sizes.width, generator=random, device=device, dtype=dtype)

    def integers(high: int) -> Tensor:
        return torch.randint(high, (1, length), generator=random, device=device)

    query, key, value = normal(sizes.heads), normal(sizes.kv_heads), normal(sizes.kv_heads)
    tokens, (keys, queries) = integers(5000), (integers(GROUPS).to(torch.int8) for _ in range(2))
    return AttentionInputs(
        query=query, key=key, value=value, scale=sizes.width**-0.5, visibility=Visibility(after=0),
        group_count=GROUPS, key_groups=keys, query_groups=queries, query_tokens=tokens, key_tokens=tokens,
        targets={"first": torch.zeros(1, length, dtype=torch.long, device=device)},
    )  # fmt: skip


def providers(sizes: Sizes, length: int, device: str = "cpu") -> dict[str, Provider]:
    """What is compared at one length; the first is what the others are divided by."""
    inputs = call_of(sizes, length, device)
    maps = 4.0 * sizes.heads * length**2
    found = {SDPA: Provider(lambda: lambda: _sdpa(inputs))}
    for one in BACKENDS_OF_SDPA[device]:
        found[f"{SDPA}, {one.name.lower()}"] = Provider(lambda one=one: lambda: _sdpa_by(inputs, one))
    found |= _statistics(inputs, choose(device)[0])
    found["n x n softmax, no statistics"] = Provider(lambda: lambda: _softmax(inputs), 3 * maps)
    found["n x n softmax, usual"] = Provider(lambda: lambda: _materialised(inputs), 4 * maps)
    return found


def _statistics(inputs: AttentionInputs, backend: str) -> dict[str, Provider]:
    """Sets of statistics by the backend in force, and on a CPU by the others too.

    With logsumexp given, what the model's own attention finds anyway was found beforehand.
    """
    found = {}
    if backend == "triton":
        for what, needs in TRITON.items():
            by = _given if what.endswith("given") else _found
            found[f"headatlas triton, {what}"] = Provider(partial(by, inputs, backend, needs))
        return found
    compiled = () if OBSTACLES["compiled"](inputs.query.device) else ("compiled",)
    for name in dict.fromkeys((backend, "streaming", *compiled)):
        for what, needs in {"usual": USUAL, "everything": EVERYTHING}.items():
            found[f"headatlas {name}, {what}"] = Provider(partial(_found, inputs, name, needs))
    return found


TRITON = {
    "rows": ROWS,
    "rows and keys": KEYS,
    "rows, logsumexp given": ROWS,
    "rows, keys and blocks, logsumexp given": BLOCKS,
}
"""Sets that the kernels are timed with; without logsumexp given they find it in a sweep of their own."""


def _found(inputs: AttentionInputs, name: str, needs: frozenset[str]) -> Callable[[], dict[str, Tensor]]:
    return lambda: BACKENDS[name](inputs, needs)


def _given(inputs: AttentionInputs, name: str, needs: frozenset[str]) -> Callable[[], dict[str, Tensor]]:
    known = with_logsumexp(inputs)
    if known is None:
        raise RuntimeError("torch's flash attention gives no logsumexp of this call")
    return lambda: BACKENDS[name](inputs, needs, logsumexp=known[1])


def _sdpa(inputs: AttentionInputs) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        inputs.query, inputs.key, cast(Tensor, inputs.value), is_causal=True, enable_gqa=inputs.repeats > 1
    )


def _sdpa_by(inputs: AttentionInputs, backend: SDPBackend) -> Tensor:
    with sdpa_kernel(backend):
        return _sdpa(inputs)


def _softmax(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """(logits, weights), both [batch, head, query, key]."""
    key = inputs.key if inputs.repeats == 1 else inputs.key.repeat_interleave(inputs.repeats, 1)
    logits = inputs.scale * inputs.query @ key.mT
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


def check(sizes: Sizes, device: str = "cpu") -> None:
    """Refuse to time wrong numbers: every set of fields that is timed, and the maps, at 300 tokens."""
    inputs = call_of(sizes, CHECKED, device)
    expected = reference_stats(inputs, EVERYTHING)
    made = [attention_stats(inputs, EVERYTHING)]
    if choose(device)[0] == "triton":
        made += [one.make()() for one in _statistics(inputs, "triton").values()]
    if device == "cpu":
        made.append(_materialised(inputs))
    for found in cast(list[dict[str, Tensor]], made):
        for name in found.keys() - {"argmax_key"}:
            torch.testing.assert_close(
                found[name].double(), expected[name].double(), rtol=TOLERANCE[device], atol=TOLERANCE[device],
                msg=lambda text, name=name: f"no table is printed, {name} is wrong: {text}",
            )  # fmt: skip


def once(sizes: Sizes, length: int, device: str, provider: str) -> tuple[float, float]:
    """(peak MB of one provider above its inputs, its seconds); call it in a fresh process."""
    providers(sizes, 64, device)[provider].make()()
    return peak_and_seconds(providers(sizes, length, device)[provider].make(), device)
