"""Which processor the operators run on: the fused kernels exist on some families only."""

from __future__ import annotations

import functools

import torch

_FUSED = ("Ascend910B", "Ascend910_93", "Ascend950")
"""The families with the fused attention and rotation kernels: Atlas A2, Atlas A3 and 950."""


@functools.cache
@torch.compiler.assume_constant_result  # so that torch.compile does not trace the driver's answer
def soc_name() -> str:
    """The processor's name, such as Ascend910B2; all NPUs of a machine are alike."""
    import torch_npu

    return str(torch_npu.npu.get_device_name(torch_npu.npu.current_device()))


def has_fused_kernels() -> bool:
    """Whether this processor has the kernels that Atlas A2 brought."""
    return soc_name().startswith(_FUSED)
