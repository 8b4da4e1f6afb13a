"""What the operators for NVIDIA GPUs ask of a call before they take it.

Everything here is metadata, and traces under torch.compile.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from mergevq.backends.registry import OK, Reject, Verdict

_HAS_TRITON = find_spec("triton") is not None
_CAPABILITY = 8
"""Of the oldest GPUs with bf16 and asynchronous copies (A100); older ones have not been thought of."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""What a kernel reads; it computes in float32."""


def runs_triton(x: torch.Tensor) -> Verdict:
    """Whether a Triton kernel can be compiled for, and launched on, the GPU of a tensor."""
    if not _HAS_TRITON:
        return Reject("Triton is not installed")
    capability = torch.cuda.get_device_properties(x.device).major
    if capability < _CAPABILITY:
        return Reject(f"compute capability {capability}.x, at least {_CAPABILITY}.0 is needed")
    if x.device.index != torch.cuda.current_device():
        return Reject(f"on {x.device}, which is not the current GPU")
    return OK


def wants_gradient(*tensors: torch.Tensor) -> bool:
    """Whether a call with these arguments is recorded for a backward pass."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
