"""Half a residual block on the CPU where no gradient is wanted: no passes over memory between its layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.convolution import convolution3x3
from mergevq.backends.cpu import winograd
from mergevq.backends.cpu.convolution import inference_only, pays
from mergevq.backends.cpu.group_norm import channel_affine
from mergevq.backends.preactivation import preactivated_convolution3x3
from mergevq.backends.registry import OK, Reject, Verdict

_VALUES = 2**18
"""In a picture: fewer stay in the caches from layer to layer."""


def _inference(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> Verdict:
    return inference_only(x, scale, shift, weight, bias, residual)


def _large(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> Verdict:
    verdict = inference_only(x, scale, shift, weight, bias, residual)
    if verdict is not OK:
        return verdict
    values = x.shape[1] * x.shape[2] * x.shape[3]
    return pays(x, weight) if values >= _VALUES else Reject(f"{values} values, at least {_VALUES} pay")


@preactivated_convolution3x3.impl("cpu", name="winograd", when=_large, priority=1, optional=True)
def preactivated_winograd(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> torch.Tensor:
    """`preactivated_convolution3x3` in strips: the picture is read for its moments, then once more."""
    affine = channel_affine(winograd.innermost(x), scale, shift, groups, eps)
    return winograd.convolve(x, weight, bias, affine=affine, residual=residual, consume=consume)


@preactivated_convolution3x3.impl("cpu", name="in_place", when=_inference, optional=True)
def preactivated_in_place(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    groups: int,
    eps: float,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    consume: bool = False,
) -> torch.Tensor:
    """`preactivated_convolution3x3` from layer to layer, what can be in place."""
    hidden = F.silu(F.group_norm(x, groups, scale, shift, eps), inplace=True)
    hidden = convolution3x3(hidden, weight, bias)
    return hidden if residual is None else hidden.add_(residual)
