"""The operators of a generator's Transformer blocks: root-mean-square norm, rotary embedding, SwiGLU.

Legend: B batch, M heads, T tokens, E head width, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op


def _norm_example(device: torch.device) -> tuple:
    return (
        torch.linspace(-2, 2, 3 * 5 * 8, device=device).reshape(3, 5, 8),
        torch.ones(8, device=device),
        1e-5,
    )


@op("rms_norm", example=_norm_example)
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Divides each vector by its root mean square; the statistics are float32 whatever the dtype.

    Args:
        x: (..., D).
        weight: (D,), multiplied afterwards.
        eps: added to the mean square.

    Returns:
        (..., D) in the dtype of `x`.

    Source: RMSNorm (arXiv:1910.07467), Eq. 4.
    """
    return F.rms_norm(x.float(), x.shape[-1:], None, eps).to(x.dtype) * weight.to(x.dtype)


def _rope_example(device: torch.device) -> tuple:
    angles = torch.linspace(0, 3, 5 * 4, device=device).reshape(1, 5, 4)
    return torch.linspace(-1, 1, 2 * 3 * 5 * 8, device=device).reshape(2, 3, 5, 8), angles.cos(), angles.sin()


@op("rope", example=_rope_example)
def rope(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates each pair of neighbouring features by the angle of its token, in float32.

    Args:
        x: (B, M, T, E).
        cosine: (1 or B, T, E/2), float32, of the angle of each pair.
        sine: the same of its sine.

    Returns:
        (B, M, T, E) in the dtype of `x`.

    Source: RoFormer (arXiv:2104.09864), Eq. 34.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, M, T, E/2) each
    cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    rotated = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def _swiglu_example(device: torch.device) -> tuple:
    gate = torch.linspace(-3, 3, 2 * 4 * 6, device=device).reshape(2, 4, 6)
    return gate, gate.flip(0)


@op("swiglu", example=_swiglu_example)
def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, for two tensors of one shape.

    Source: GLU variants (arXiv:2002.05202), Eq. 5.
    """
    return F.silu(gate) * up
