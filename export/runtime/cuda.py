"""Memory and a stream of an NVIDIA card, by NVIDIA's own bindings: all that engines need of CUDA, without PyTorch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from mergevq.errors import DeviceUnavailableError, ExportError


class Cuda:
    """The first card that the process sees (CUDA_VISIBLE_DEVICES decides), and a stream on it.

    Attributes:
        stream: handle of the stream.

    Raises:
        DeviceUnavailableError: there is no card, no driver for it, or cuda-bindings is not installed.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise DeviceUnavailableError(
                "engines need cuda-bindings, which cannot be imported; pip install cuda-bindings"
            ) from error
        self._runtime: Any = runtime
        try:
            cards = self._call(runtime.cudaGetDeviceCount)
            if not cards:
                raise DeviceUnavailableError("engines need an NVIDIA card, and CUDA sees none")
            self._call(runtime.cudaSetDevice, 0)
            self._stream = self._call(runtime.cudaStreamCreate)
        except ExportError as error:
            raise DeviceUnavailableError(f"engines need an NVIDIA card and its driver: {error}") from error
        self.stream = int(self._stream)

    @property
    def capability(self) -> str:
        """Compute capability of the card, "8.6" say."""
        attributes = self._runtime.cudaDeviceAttr
        major = attributes.cudaDevAttrComputeCapabilityMajor
        minor = attributes.cudaDevAttrComputeCapabilityMinor
        return ".".join(
            str(self._call(self._runtime.cudaDeviceGetAttribute, each, 0)) for each in (major, minor)
        )

    @property
    def name(self) -> str:
        """Of the card."""
        found: bytes = self._call(self._runtime.cudaGetDeviceProperties, 0).name
        return found.rstrip(b"\0").decode()

    @property
    def driver(self) -> int:
        """Major version of CUDA that the driver brings."""
        return int(self._call(self._runtime.cudaDriverGetVersion)) // 1000

    def upload(self, array: np.ndarray, address: int) -> None:
        """Copies a contiguous array to the card; it must live until `wait` has returned."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(
            self._runtime.cudaMemcpyAsync, address, array.ctypes.data, array.nbytes, kind, self._stream
        )

    def download(self, address: int, array: np.ndarray) -> None:
        """Copies from the card into a contiguous array, which is filled once `wait` has returned."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(
            self._runtime.cudaMemcpyAsync, array.ctypes.data, address, array.nbytes, kind, self._stream
        )

    def wait(self) -> None:
        """Returns when all that was asked for is done."""
        self._call(self._runtime.cudaStreamSynchronize, self._stream)

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the card."""
        return int(self._call(self._runtime.cudaMalloc, size))

    def free(self, address: int) -> None:
        """Gives memory back; what was asked for before may still use it."""
        self._runtime.cudaFree(
            address
        )  # waits for the card; its status is that of earlier work, told elsewhere

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives; raises ExportError where it fails."""
        status, *found = function(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(status)
            raise ExportError(f"{function.__name__} fails: {text.decode()}")
        return found[0] if found else None


class Buffer:
    """Memory on the card that grows when more is asked for, and otherwise stays where it is.

    Args:
        cuda: the card.
    """

    def __init__(self, cuda: Cuda):
        self._cuda = cuda
        self._size = 0
        self._address = 0
        self._release: Callable[[], object] = lambda: None

    def of(self, size: int) -> int:
        """The address of at least so many bytes; what they held before is lost where they had to grow."""
        if size > self._size or not self._size:
            self._release()
            self._size = 0
            self._address = self._cuda.allocate(max(size, 1))  # an address is wanted for nothing, too
            self._size = max(size, 1)
            self._release = weakref.finalize(self, self._cuda.free, self._address)
        return self._address
