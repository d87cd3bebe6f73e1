"""What a normalisation does, asked of the module itself: its gain per channel and whether it centres.

A LayerNorm or RMSNorm is f(x) = g * c(x) / s(x) + b, where c takes the mean away or nothing, and s is a scale that is
the same for x and -x. So (f(x) + f(-x)) / 2 is b, and f(x) - b over c(x) / s(x) is g: this reads Gemma's 1 + w and a
norm without weights as readily as any other, and no attribute's name has to be known. A second input tells whether the
module is of this kind at all.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.errors import UserError, first_line

TOLERANCE = 1e-3
"""Largest error of a second input's prediction, relative to its largest value."""


@dataclass(frozen=True)
class Norm:
    """The linear part of a normalisation; the scale per token, which depends on the token, is left out."""

    gain: Tensor
    """float32 [width]."""
    centred: bool

    def fold_reader(self, weight: Tensor) -> Tensor:
        """A matrix [..., width, out] that reads the norm's output, as one that reads the residual stream."""
        folded = self.gain[:, None].to(weight.device) * weight
        return centre(folded, -2) if self.centred else folded


def norm_of(module: nn.Module, width: int, name: str) -> Norm:
    """The `Norm` of a module over `width` channels; `name` is for the error where it is none."""
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    signs = (2.0 * torch.randint(0, 2, (width,), generator=random) - 1).to(device)
    other = torch.randn(width, generator=random).to(device)
    own = copy.deepcopy(module).float()
    try:
        with torch.no_grad():
            rows = 10 * torch.stack([signs, -signs, other, -other, other + 0.5])[:, None]
            first, turned, second, back, shifted = own(rows)[:, 0]
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} ({type(module).__name__}) can't be asked what it does: {first_line(error)}") from None
    bias, allowed = (first + turned) / 2, TOLERANCE * second.abs().max().clamp(min=1e-6)
    centred = bool((shifted - second).abs().max() <= allowed)
    gain = (first - bias) / _scaled(signs, centred)
    expected = gain * _scaled(other, centred)
    if not max((second - bias - expected).abs().max(), (back - bias + expected).abs().max()) <= allowed:
        raise UserError(f"{name} ({type(module).__name__}): expected a LayerNorm or an RMSNorm; it is neither")
    return Norm(gain, centred)


def centre(weight: Tensor, axis: int) -> Tensor:
    """The weight without its mean along an axis."""
    return weight - weight.mean(axis, keepdim=True)


def writer_gain(network: nn.Module, name: str | None, weight: Tensor) -> Tensor:
    """The gain of a norm over what a weight [head, in, out] writes: over the channels of one head, or of all joined."""
    heads, _, out = weight.shape
    if name is None:
        return torch.ones(out, device=weight.device)
    module = network.get_submodule(name)
    joined = heads > 1 and getattr(getattr(module, "weight", None), "shape", None) == (heads * out,)
    norm = norm_of(module, heads * out if joined else out, name)
    if norm.centred:
        raise UserError(f"{name} centres what a head writes; expected a norm that scales alone")
    gain = norm.gain.to(weight.device)
    return gain.view(heads, 1, out) if joined else gain


def _scaled(row: Tensor, centred: bool) -> Tensor:
    row = row - row.mean() if centred else row
    return row / row.square().mean().sqrt()
