"""3x3 convolutions on the CPU where no gradient is wanted: channels innermost, and Winograd's algorithm.

Both implementations return channels-last tensors, so that a chain of layers stays in that layout:
the library's direct convolution is then spared two changes of layout a call.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.convolution import convolution3x3
from mergevq.backends.cpu import winograd
from mergevq.backends.registry import OK, Reject, Verdict

_CHANNELS = 64
"""With fewer channels Winograd's transforms cost what its products save."""

_TILES = 16
"""With fewer tiles its transform of the weights costs what its products save."""

_PRODUCTS = 2**20
"""With fewer products in each of the 36 sums the calls cost more than the arithmetic."""


def inference_only(x: torch.Tensor, *others: torch.Tensor | None) -> Verdict:
    """Accepts a (B, C, h, w) `x` where all is in float32, without a gradient, run eagerly."""
    tensors = [x, *(tensor for tensor in others if tensor is not None)]
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return Reject("the compiler plans convolutions itself")
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return Reject("a gradient is wanted")
    if torch.is_autocast_enabled("cpu") or any(tensor.dtype != torch.float32 for tensor in tensors):
        return Reject("not in float32")
    return OK if x.dim() == 4 else Reject(f"{x.dim()} dimensions, not 4")


def pays(x: torch.Tensor, weight: torch.Tensor) -> Verdict:
    """Accepts what Winograd's algorithm was measured to be faster at."""
    width, channels = weight.shape[:2]
    if min(width, channels) < _CHANNELS:
        return Reject(f"{min(width, channels)} channels, at least {_CHANNELS} pay")
    tiles = x.shape[0] * (x.shape[2] // 4) * (x.shape[3] // 4)
    if tiles < _TILES:
        return Reject(f"{tiles} tiles of 4 x 4, at least {_TILES} pay")
    products = tiles * width * channels
    return OK if products >= _PRODUCTS else Reject(f"{products} products, at least {_PRODUCTS} pay")


def _large(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Verdict:
    verdict = inference_only(x, weight, bias)
    return verdict if verdict is not OK else pays(x, weight)


def _inference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Verdict:
    return inference_only(x, weight, bias)


@convolution3x3.impl("cpu", name="winograd", when=_large, priority=1, optional=True)
def convolution3x3_winograd(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`convolution3x3` with a quarter of the products; off by about 2e-6 of the largest value."""
    return winograd.convolve(x, weight, bias)


@convolution3x3.impl("cpu", name="channels_last", when=_inference, optional=True)
def convolution3x3_channels_last(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`convolution3x3` in the layout in which the library's convolution changes none."""
    return F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, padding=1)
