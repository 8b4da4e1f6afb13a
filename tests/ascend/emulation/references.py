"""Operators of torch_npu's own, computed on the CPU from the vendor's documents.

Each takes and returns CPU tensors, and raises where the documents forbid what it is given: a call that the
kernel would refuse on a card must not pass here. Statistics are float32 whatever the dtype.

Source: the API reference of Ascend Extension for PyTorch, and the documents of op-plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from emulation.attention_references import (
    fused_infer_attention_score,
    fusion_attention,
    fusion_attention_grad,
    fusion_attention_grad_v3,
    fusion_attention_v3,
)
from emulation.documents import FLOATS, require

ND = 2
"""The number of the plain tensor format."""


# Dtypes and formats.


def cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype)


def to_plain_format(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return x.clone()


def storage_size(x: torch.Tensor) -> int:
    return x.untyped_storage().nbytes() // x.element_size()


# Norm, gate, rotation.


def rms_norm(
    x: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6
) -> tuple[torch.Tensor, torch.Tensor]:
    require(x.dtype in FLOATS and 1 <= x.dim() <= 8, f"x is {x.dtype} with {x.dim()} dimensions")
    require(gamma.shape == x.shape[x.dim() - gamma.dim() :], f"gamma is {tuple(gamma.shape)}")
    require(gamma.dtype in (x.dtype, torch.float32), f"gamma is {gamma.dtype} and x {x.dtype}")
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
    return (wide * scale * gamma.float()).to(x.dtype), scale


def rms_norm_backward(
    gradient: torch.Tensor, x: torch.Tensor, gamma: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    wide, weighted = x.float(), gradient.float() * gamma.float()
    normed = wide * scale
    of_x = scale * (weighted - normed * (weighted * normed).mean(dim=-1, keepdim=True))
    of_gamma = (gradient.float() * normed).flatten(0, -2).sum(dim=0)
    return of_x.to(x.dtype), of_gamma


def swiglu(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    require(x.dtype in FLOATS and 1 <= x.dim() <= 8, f"x is {x.dtype} with {x.dim()} dimensions")
    require(x.shape[dim] % 2 == 0, f"dimension {dim} has {x.shape[dim]} entries, which cannot be halved")
    gate, up = x.float().chunk(2, dim)
    return (F.silu(gate) * up).to(x.dtype)


def swiglu_backward(gradient: torch.Tensor, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim)
    wide, share = gradient.float(), gate.sigmoid()
    of_gate = wide * up * share * (1 + gate * (1 - share))
    return torch.cat([of_gate, wide * gate * share], dim).to(x.dtype)


def rotary_mul(
    x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, mode: str = "half", rotate: Any = None
) -> torch.Tensor:
    _check_rotation(x, cosine, sine, mode)
    return (x * cosine + _quarter_turn(x, mode) * sine).to(x.dtype)


def _quarter_turn(x: torch.Tensor, mode: str) -> torch.Tensor:
    """Each pair (a, b) to (-b, a)."""
    if mode == "half":
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def _check_rotation(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, mode: str) -> None:
    require(mode in ("half", "interleave"), f"rotary_mode is {mode!r}")
    require(x.dim() in (3, 4), f"x has {x.dim()} dimensions, 3 or 4 are allowed")
    require(x.dtype in FLOATS and x.dtype == cosine.dtype == sine.dtype, "dtypes differ")
    require(x.shape[-1] % 2 == 0 and x.shape[-1] < 896, f"heads are {x.shape[-1]} wide")
    require(cosine.shape == sine.shape, "cosine and sine differ in shape")
    fits = all(mine in (1, theirs) for mine, theirs in zip(cosine.shape, x.shape, strict=True))
    require(fits and cosine.shape[-1] == x.shape[-1], f"angles are {tuple(cosine.shape)}, x {tuple(x.shape)}")
    if x.dim() == 4:
        heads = [size for size, angle in zip(x.shape[:3], cosine.shape[:3], strict=True) if angle == 1]
        require(
            all(size < 1000 for size in heads), f"x is {tuple(x.shape)}: batch and heads must be below 1000"
        )


def rotary_mul_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    mode: str = "half",
    rotate: Any = None,
) -> tuple[torch.Tensor, ...]:
    wide = gradient.float()
    of_x = wide * cosine - _quarter_turn(wide * sine, mode)  # a quarter turn back is its negative
    of_cosine = (wide * x).sum_to_size(cosine.shape)
    of_sine = (wide * _quarter_turn(x, mode)).sum_to_size(sine.shape)
    return of_x.to(x.dtype), of_cosine.to(cosine.dtype), of_sine.to(sine.dtype)


# Dropout, scatter, products.


def dropout(x: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mask's format is private to the kernel and its gradient; the draws are those of the CPU's dropout."""
    kept = torch.empty_like(x).bernoulli_(1 - p)
    return x * (kept / (1 - p)), kept.to(torch.uint8)


def dropout_backward(gradient: torch.Tensor, kept: torch.Tensor, p: float) -> torch.Tensor:
    return gradient * (kept.to(gradient.dtype) / (1 - p))


def native_dropout(x: torch.Tensor, p: float, train: bool | None) -> tuple[torch.Tensor, torch.Tensor]:
    """As above, for the operator of PyTorch: torch_npu's mask has another type than everybody's."""
    dropped, kept = torch.native_dropout(x, p, train)
    return dropped, kept.to(torch.uint8)


def native_dropout_backward(gradient: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
    require(kept.dtype == torch.uint8, f"the mask is {kept.dtype}")
    return gradient * (kept.to(gradient.dtype) * scale)


def scatter_nd_update_(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    x[tuple(indices.unbind(-1))] = updates
    return x


def matmul_backward(
    gradient: torch.Tensor, one: torch.Tensor, other: torch.Tensor, wanted: list[bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    left, right = one, other
    if one.dim() == 1:
        left, gradient = one.unsqueeze(0), gradient.unsqueeze(-2)
    if other.dim() == 1:
        right, gradient = other.unsqueeze(1), gradient.unsqueeze(-1)
    of_left = of_right = None
    if wanted[0]:
        of_left = (gradient @ right.transpose(-1, -2)).sum_to_size(left.shape).reshape(one.shape)
    if wanted[1]:
        of_right = (left.transpose(-1, -2) @ gradient).sum_to_size(right.shape).reshape(other.shape)
    return of_left, of_right


REFERENCES: dict[str, Callable[..., Any]] = {
    "aten::matmul_backward": matmul_backward,
    "aten::native_dropout": native_dropout,
    "aten::native_dropout_backward": native_dropout_backward,
    "npu::_npu_dropout": dropout,
    "npu::_npu_dtype_cast": cast,
    "npu::_npu_dtype_cast_backward": cast,
    "npu::_npu_format_cast": to_plain_format,
    "npu::get_npu_format": lambda x: ND,
    "npu::get_storage_size": storage_size,
    "npu::npu_dropout_backward": dropout_backward,
    "npu::npu_dtype_cast": cast,
    "npu::npu_dtype_cast_backward": cast,
    "npu::npu_format_cast": to_plain_format,
    "npu::npu_fused_infer_attention_score": fused_infer_attention_score,
    "npu::npu_fusion_attention": fusion_attention,
    "npu::npu_fusion_attention_grad": fusion_attention_grad,
    "npu::npu_fusion_attention_grad_v3": fusion_attention_grad_v3,
    "npu::npu_fusion_attention_v3": fusion_attention_v3,
    "npu::npu_rms_norm": rms_norm,
    "npu::npu_rms_norm_backward": rms_norm_backward,
    "npu::npu_rotary_mul": rotary_mul,
    "npu::npu_rotary_mul_backward": rotary_mul_backward,
    "npu::npu_scatter_nd_update_": scatter_nd_update_,
    "npu::npu_swiglu": swiglu,
    "npu::npu_swiglu_backward": swiglu_backward,
}
"""By name in the dispatcher."""
