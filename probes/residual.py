"""The residual stream as each layer leaves it, reduced token by token while the model runs.

A layer is read at the output of its block, after the last residual addition (in a post-norm model, after its norm).
What is said of it holds for the whole layer: it comes as the statistics of a call with no head, `[batch, 1, token]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..data.errors import UserError
from ..kernels.stats import Field, split_name

AXES = "[batch, 1, token]"
LARGE, ABOVE_MEDIAN = 100.0, 1000.0
"""What makes an activation massive: its size, and how often it is the median size of its token's activations."""

RESIDUAL: Mapping[str, Field] = {
    "residual_norm": Field(AXES, "norm", "||h_t||"),
    "residual_max": Field(AXES, "activation", "max_d |h_td|"),
    "residual_argmax": Field(AXES, "dimension", "argmax_d |h_td|"),
    "residual_median": Field(AXES, "activation", "median_d |h_td|"),
    "residual_massive": Field(
        AXES, "activations", f"number of d with |h_td| > {LARGE:.0f} and > {ABOVE_MEDIAN:.0f} median_d |h_td|"
    ),
}
"""The statistics of the residual stream by name, as `FIELDS` holds those of attention."""


def check_names(needs: Iterable[str]) -> None:
    """Refuse a name that is a statistic neither of the residual stream nor of attention."""
    for name in needs:
        if name not in RESIDUAL:
            try:
                split_name(name)
            except KeyError as error:
                raise UserError(error.args[0]) from None


def residual_stats(hidden: Tensor, needs: Iterable[str]) -> dict[str, Tensor]:
    """The asked-for statistics of a stream [batch, token, d_model], and `visible_keys`, 1 for each token.

    >>> found = residual_stats(torch.tensor([[[3.0, -4.0, 0.0]]]), {"residual_norm", "residual_argmax"})
    >>> found["residual_norm"].item(), found["residual_argmax"].item()
    (5.0, 1)
    """
    size = hidden.float().abs()[:, None]
    largest, dimension = size.max(-1)
    median: Callable[[], Tensor] = lambda: size.median(-1).values  # noqa: E731
    made: dict[str, Callable[[], Tensor]] = {
        "residual_norm": lambda: size.norm(dim=-1),
        "residual_max": lambda: largest,
        "residual_argmax": lambda: dimension,
        "residual_median": median,
        "residual_massive": lambda: (size > torch.clamp(ABOVE_MEDIAN * median(), min=LARGE)[..., None]).sum(-1),
    }
    return {name: made[name]() for name in needs} | {"visible_keys": torch.ones_like(dimension)}


@contextmanager
def watch_blocks(network: nn.Module, seen: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show the output [batch, token, d_model] of every numbered module to `seen(name, hidden)` inside the block."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def show(_: nn.Module, __: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if isinstance(hidden, Tensor) and hidden.dim() == 3:
                seen(name, hidden)

        return show

    numbered = [(name, one) for name, one in network.named_modules() if name.rpartition(".")[2].isdigit()]
    handles = [one.register_forward_hook(hook(name)) for name, one in numbered]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
