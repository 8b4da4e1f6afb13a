"""Device memory is host memory here: a tensor on device npu and the same bytes as a tensor on the CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch


def on_npu(value: Any) -> bool:
    """Whether this is a tensor on an NPU."""
    return isinstance(value, torch.Tensor) and value.device.type == "npu"


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor over the memory of a tensor on an NPU; it must not outlive it."""
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def to_npu(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on an NPU, with the same strides."""
    copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    on_host(copy).copy_(tensor)
    return copy


def write_back(tensor: torch.Tensor, host: torch.Tensor) -> None:
    """Takes over what a host kernel made of `host` where it gave it other memory or another shape."""
    if host.shape != tensor.shape or host.stride() != tensor.stride():
        tensor.resize_(host.shape)
        on_host(tensor).copy_(host)
