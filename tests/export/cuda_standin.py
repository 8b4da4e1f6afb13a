"""A stand-in for NVIDIA's cuda-bindings: a graphics card whose memory is the host's, which watches its bounds."""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class Card:
    """A graphics card, whose memory is the host's.

    Attributes:
        capability: compute capability.
        fails: name of a CUDA function that is to fail.
        count: how many cards there are.
        allocations: how often memory was asked for.
        live: memory by address.
        waiting: copies to the host that `cudaStreamSynchronize` makes.
    """

    capability: tuple[int, int] = (8, 6)
    name: str = "NVIDIA A10 (stand-in)"
    fails: str = ""
    count: int = 1
    allocations: int = 0
    live: dict[int, np.ndarray] = field(default_factory=dict)
    waiting: list[tuple[int, int, int]] = field(default_factory=list)

    def view(self, address: int, size: int) -> int:
        """The address, where so many bytes of one allocation follow it."""
        for start, memory in self.live.items():
            if start <= address and address + size <= start + memory.nbytes:
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are not on the card")

    def owns(self, stream: int) -> bool:
        """Whether a stream is one of this card."""
        return stream == STREAM

    def deny(self, address: int) -> None:
        """Raises where an address that is to be the host's is on the card."""
        for start, memory in self.live.items():
            assert not start <= address < start + memory.nbytes, f"{address:#x} is on the card"


CudaError = enum.IntEnum("CudaError", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2})
CopyKind = enum.IntEnum("CopyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
CudaAttribute = enum.IntEnum(
    "CudaAttribute", {"cudaDevAttrComputeCapabilityMajor": 75, "cudaDevAttrComputeCapabilityMinor": 76}
)
STREAM = 77


class CudaFunctions:
    """The functions of cuda.bindings.runtime on a card, without their statuses."""

    def __init__(self, card: Card):
        self._card = card

    def cudaGetDeviceCount(self) -> int:
        return self._card.count

    def cudaSetDevice(self, device: int) -> None:
        assert device == 0

    def cudaStreamCreate(self) -> int:
        return STREAM

    def cudaStreamSynchronize(self, stream: int) -> None:
        assert stream == STREAM
        for target, source, count in self._card.waiting:
            ctypes.memmove(target, source, count)
        self._card.waiting.clear()

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> int:
        return self._card.capability[attribute - CudaAttribute.cudaDevAttrComputeCapabilityMajor]

    def cudaGetDeviceProperties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(name=self._card.name.encode() + b"\0")

    def cudaDriverGetVersion(self) -> int:
        return 13010

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: int, stream: int) -> None:
        assert stream == STREAM
        if kind == CopyKind.cudaMemcpyHostToDevice:
            ctypes.memmove(self._card.view(target, count), source, count)
        else:
            self._card.waiting.append((target, self._card.view(source, count), count))

    def cudaMalloc(self, size: int) -> int:
        assert size > 0
        memory = np.full(size, 0xA5, dtype=np.uint8)
        self._card.allocations += 1
        self._card.live[memory.ctypes.data] = memory
        return memory.ctypes.data

    def cudaFree(self, address: int) -> None:
        del self._card.live[address]

    def cudaGetErrorString(self, status: int) -> bytes:
        return b"out of memory"


def cuda_module(card: Card) -> ModuleType:
    """cuda.bindings.runtime."""
    functions = CudaFunctions(card)
    module = ModuleType("cuda.bindings.runtime")

    def answering(name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if name == card.fails:
                return CudaError.cudaErrorMemoryAllocation, None
            found = getattr(functions, name)(*arguments)
            return (CudaError.cudaSuccess,) if found is None else (CudaError.cudaSuccess, found)

        call.__name__ = name
        return call

    values = {name: answering(name) for name in dir(functions) if name.startswith("cuda")}
    values |= {"cudaError_t": CudaError, "cudaMemcpyKind": CopyKind, "cudaDeviceAttr": CudaAttribute}
    for name, value in values.items():
        setattr(module, name, value)
    return module
