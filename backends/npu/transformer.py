"""Root-mean-square norm, rotary embedding and SwiGLU by the vendor's kernels, forwards and backwards.

What is easy to get wrong: the norm's epsilon has another default; the rotation has a convention, of which ours,
pairs of neighbours, is called "interleave"; and the gate of SwiGLU is the first half of its input.

Source: the documentation of op-plugin, `npu_rms_norm`, `npu_rotary_mul` and `npu_swiglu`.
Legend: B batch, M heads, T tokens, E head width, D width.
"""

from __future__ import annotations

import torch

from mergevq.backends.npu.soc import has_fused_kernels
from mergevq.backends.registry import OK, Reject, Verdict
from mergevq.backends.transformer import rms_norm, rope, swiglu

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_DIMENSIONS = 8
_ROTATED_WIDTH = 896
_ROTATED_ROWS = 1000


def _unfit(x: torch.Tensor, least: int) -> str | None:
    if x.dtype not in _DTYPES:
        return f"{x.dtype}; the kernel takes 16 and 32 bit"
    if not least <= x.dim() <= _DIMENSIONS:
        return f"{x.dim()} dimensions; the kernel takes {least} to {_DIMENSIONS}"
    return None


def _normable(x: torch.Tensor, weight: torch.Tensor, eps: float) -> Verdict:
    reason = _unfit(x, 2)
    return OK if reason is None else Reject(reason)


@rms_norm.impl("npu", name="npu_rms_norm", when=_normable)
def rms_norm_fused(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """`rms_norm` in one kernel, its statistics in float32; the weight is rounded to the dtype of `x` first."""
    return torch.ops.npu.npu_rms_norm(x, weight.to(x.dtype), eps)[0]


def _rotatable(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> Verdict:
    """Accepts what the kernel takes as one sequence of B*T tokens with M heads each."""
    reason = _unfit(x, 4)
    if reason is None and not has_fused_kernels():
        reason = "this processor rotates halves only, and not neighbours"
    if reason is None and not (0 < x.shape[3] < _ROTATED_WIDTH):
        reason = f"heads are {x.shape[3]} wide, less than {_ROTATED_WIDTH} is wanted"
    if reason is None and not (0 < x.shape[1] < _ROTATED_ROWS):
        reason = f"{x.shape[1]} heads, less than {_ROTATED_ROWS} are wanted"
    if reason is None and torch.is_grad_enabled() and (cosine.requires_grad or sine.requires_grad):
        reason = "a gradient of the angles is wanted"
    return OK if reason is None else Reject(reason)


@rope.impl("npu", name="npu_rotary_mul", when=_rotatable)
def rope_fused(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """`rope` in one kernel, in float32.

    The kernel wants one set of angles for the whole batch, and fewer than 1000 pairs of row and head.
    Both hold for one row of B*T tokens, which is how the queries lie in memory anyway.
    """
    batch, heads, tokens, width = x.shape

    def angles(values: torch.Tensor) -> torch.Tensor:
        doubled = torch.stack([values, values], dim=-1).flatten(-2).float()  # (1 or B, T, E)
        return doubled.expand(batch, -1, -1).reshape(1, batch * tokens, 1, width)

    row = x.transpose(1, 2).float().reshape(1, batch * tokens, heads, width)
    rotated = torch.ops.npu.npu_rotary_mul(row, angles(cosine), angles(sine), "interleave")
    return rotated.view(batch, tokens, heads, width).transpose(1, 2).to(x.dtype)


def _gateable(gate: torch.Tensor, up: torch.Tensor) -> Verdict:
    reason = _unfit(gate, 1)
    if reason is None and (gate.shape != up.shape or gate.dtype != up.dtype):
        reason = "gate and input differ in shape or dtype"
    return OK if reason is None else Reject(reason)


@swiglu.impl("npu", name="npu_swiglu", when=_gateable)
def swiglu_fused(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """`swiglu` in one kernel, and one for its gradient."""
    return torch.ops.npu.npu_swiglu(_side_by_side(gate, up), -1)


def _side_by_side(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """(..., 2D): the tensor that both are halves of where there is one, else a copy."""
    whole = None if torch.compiler.is_compiling() else gate._base
    if whole is None or whole is not up._base:
        return torch.cat([gate, up], dim=-1)
    width = gate.shape[-1]
    halves = (
        whole.shape == (*gate.shape[:-1], 2 * width)
        and whole.dtype == gate.dtype
        and whole.stride() == gate.stride() == up.stride()
        and whole.storage_offset() == gate.storage_offset() == up.storage_offset() - width * whole.stride(-1)
    )
    return whole if halves else torch.cat([gate, up], dim=-1)
