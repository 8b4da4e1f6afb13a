"""Calls of operators on the NPU: recorded as they are made, described without their data, and made again.

On the module path of the tests on the emulated NPU, and of none else.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PACKAGE = ("/mergevq/", "/backends/")


@dataclass(frozen=True)
class Shape:
    """A tensor without its data."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    @staticmethod
    def of(tensor: torch.Tensor) -> Shape:
        return Shape(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device.type)

    def zeros(self) -> torch.Tensor:
        """Such a tensor, made by copies of memory alone: no kernel runs."""
        span = 1 + sum((size - 1) * step for size, step in zip(self.size, self.stride, strict=True))
        flat = torch.zeros(0 if 0 in self.size else span, dtype=self.dtype)
        return flat.to(self.device).as_strided(self.size, self.stride)


@dataclass(frozen=True)
class Format:
    """A memory format by its name, as it cannot be pickled itself."""

    name: str


def described(value: Any) -> Any:
    """An argument without data that can be saved."""
    if isinstance(value, torch.Tensor):
        return Shape.of(value)
    return Format(str(value).removeprefix("torch.")) if isinstance(value, torch.memory_format) else value


def made(value: Any) -> Any:
    """The inverse, with zeros for data."""
    if isinstance(value, Shape):
        return value.zeros()
    return getattr(torch, value.name) if isinstance(value, Format) else value


@dataclass(frozen=True)
class Call:
    """An operator with its arguments, which are `described`."""

    operator: str
    arguments: Any
    options: Any

    @property
    def shapes(self) -> list[Shape]:
        """Those of its tensors."""
        return [each for each in tree_leaves((self.arguments, self.options)) if isinstance(each, Shape)]

    @property
    def overload(self) -> Any:
        """What to call."""
        space, _, rest = self.operator.partition("::")
        base, _, overload = rest.partition(".")
        return getattr(getattr(getattr(torch.ops, space), base), overload or "default")

    def again(self) -> Any:
        """Calls it with zeros."""
        args, kwargs = tree_map(made, (self.arguments, self.options))
        return self.overload(*args, **kwargs)


class Recorder(TorchDispatchMode):
    """Collects the calls that have to do with an NPU, and where they came from: a line of the package, or "backward".

    Attributes:
        calls: every different call once, by what it looks like, with the place where it was made first.
        waits: every place at which the host waited for the device, as often as it did.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Call, str]] = {}
        self.waits: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        leaves = [each for each in tree_leaves((args, kwargs, result)) if isinstance(each, torch.Tensor)]
        if any(each.device.type == "npu" for each in leaves):
            self._record(function.name(), args, kwargs)
        return result

    def _record(self, name: str, args: Any, kwargs: Any) -> None:
        call = Call(name, *tree_map(described, (args, kwargs)))
        if repr(call) not in self.calls:
            self.calls[repr(call)] = call, caller()
        if name in SYNCHRONISING or leaves_device(call):
            self.waits.append(caller())


SYNCHRONISING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2")
"""Operators for whose result the host has to wait."""


def leaves_device(call: Call) -> bool:
    """Whether a call copies from the NPU to the CPU."""
    device = call.options.get("device")
    if call.operator == "aten::_to_copy":
        return device is not None and device.type == "cpu" and call.shapes[0].device == "npu"
    return call.operator == "aten::copy_" and [shape.device for shape in call.shapes] == ["cpu", "npu"]


def caller() -> str:
    """The innermost line of the package that is being run."""
    for frame in reversed(traceback.extract_stack()):
        path = frame.filename
        if any(part in path for part in PACKAGE) and "/tests/" not in path:
            return f"{Path(path).name}:{frame.lineno} ({frame.name})"
    return "backward"
