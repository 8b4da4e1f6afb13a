"""Kernels for tensors on device npu that compute on the CPU.

In: an imported torch_npu. `install()` puts a host kernel in the place of each of its kernels, in the dispatcher, for
the whole process: calls from C++ reach them too. Everything around the kernels stays torch_npu's own: which
operators it has at all, what they decompose into, their autograd formulas and autocast policy.
A `npu::` operator without a reference keeps its genuine kernel, which the stub of CANN refuses aloud.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

from emulation.device_memory import on_host, on_npu, to_npu, write_back
from emulation.references import REFERENCES

GENUINE = frozenset(
    {
        "aten::empty.memory_format",
        "aten::empty_strided",
        "aten::_local_scalar_dense",
        "aten::record_stream",
        "aten::is_pinned",
        "aten::_pin_memory",
        "aten::detach",
        "aten::resize_",
        "aten::storage_offset",
        "aten::_reshape_alias",
    }
)
"""Kernels that allocate, or make views; they need nothing of CANN but its memory."""

COMPOSITES = ("argsort", "one_hot", "isfinite")
"""Composite operators that torch_npu has kernels for, and no gradient."""

_libraries: dict[str, torch.library.Library] = {}


def install() -> int:
    """Replaces the kernels; returns how many."""
    count = 0
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith(("aten::", "npu::")) or not _has_kernel(name, "PrivateUse1"):
            continue
        operator = _operator(name)
        if operator is not None and _is_replaced(name, operator):
            _replace(name, operator)
            count += 1
    for name, parts in TAKEN_APART.items():
        for key in ("PrivateUse1", "AutogradPrivateUse1"):
            _library(name).impl(name.removeprefix("aten::"), parts, key, allow_override=True)
    return count


def _operator(name: str) -> Any | None:
    """The overload behind a name of the dispatcher, where there is one for Python."""
    space, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, space), base, None)
    return getattr(packet, overload or "default", None)


def _is_replaced(name: str, operator: Any) -> bool:
    if name in GENUINE or name.startswith("aten::set_"):
        return False
    if name.startswith("npu::"):
        return name in REFERENCES
    if _has_kernel(name, "CompositeImplicitAutograd") and not _is_a_kernel_all_the_same(name):
        return False
    returns = operator._schema.returns
    return not any(each.alias_info is not None and not each.alias_info.is_write for each in returns)  # views


def _is_a_kernel_all_the_same(name: str) -> bool:
    """Whether torch_npu computes a composite operator, rather than take it apart in its own way."""
    base = name.removeprefix("aten::").partition(".")[0]
    if "scaled_dot_product" in base:
        return False
    return base in COMPOSITES or base.endswith("_backward") or _has_kernel(name, "AutogradPrivateUse1")


def _has_kernel(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def _replace(name: str, operator: Any) -> None:
    rest = name.partition("::")[2]
    library = _library(name)
    kernel = COPIES.get(name) or host_kernel(REFERENCES.get(name, operator))
    library.impl(rest, kernel, "PrivateUse1", allow_override=True)
    if rest.partition(".")[0] in COMPOSITES:
        library.impl(rest, kernel, "AutogradPrivateUse1", allow_override=True)


def _library(name: str) -> torch.library.Library:
    space = name.partition("::")[0]
    return _libraries.setdefault(space, torch.library.Library(space, "IMPL"))


def host_kernel(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel for tensors on an NPU from a function of tensors on the CPU.

    Its arguments become CPU tensors over the same memory, so that it may write to them; its results are copied
    to where the arguments are. Random numbers come from the CPU's generator: the same draws as on the CPU.
    """

    @functools.wraps(compute)
    def kernel(*args: Any, **kwargs: Any) -> Any:
        devices: list[torch.device] = []
        given: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def enter(value: Any) -> Any:
            if on_npu(value):
                host = on_host(value)
                given[id(host)] = value, host
                devices.append(value.device)
                return host
            if isinstance(value, torch.device) and value.type == "npu":
                devices.append(value)
                return torch.device("cpu")
            return None if isinstance(value, torch.Generator) and value.device.type == "npu" else value

        def leave(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return given[id(value)][0] if id(value) in given else to_npu(value, _numbered(devices))

        host_args, host_kwargs = tree_map(enter, (args, kwargs))
        results = compute(*host_args, **host_kwargs)
        for tensor, host in given.values():
            write_back(tensor, host)
        return tree_map(leave, results)

    return kernel


def _numbered(devices: list[torch.device]) -> torch.device:
    """The first device that was named, with its number."""
    if devices and devices[0].index is not None:
        return devices[0]
    return torch.device("npu", torch.npu.current_device())


def _host(tensor: torch.Tensor) -> torch.Tensor:
    return on_host(tensor) if on_npu(tensor) else tensor


def _copy_(to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _host(to).copy_(_host(source))
    return to


def _copy_from(source: torch.Tensor, to: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    return _copy_(to, source)


def _copy_from_and_resize(source: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return _copy_(to.resize_(source.shape), source)


def _to_copy(
    tensor: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    target = tensor.device if device is None else torch.device(device)
    if dtype == torch.float64 and device is None:
        dtype = torch.float32  # what torch_npu makes of it: ToKernelNpu.cpp
    copy = _host(tensor).to(dtype or tensor.dtype, copy=True)
    if memory_format not in (None, torch.preserve_format):
        copy = copy.contiguous(memory_format=memory_format)
    return to_npu(copy, _numbered([target])) if target.type == "npu" else copy


def _softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.ops.aten._softmax(x if dtype is None else x.to(dtype), dim, False)


def _log_softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.ops.aten._log_softmax(x if dtype is None else x.to(dtype), dim, False)


TAKEN_APART: dict[str, Callable[..., Any]] = {
    "aten::softmax.int": _softmax,
    "aten::log_softmax.int": _log_softmax,
}
"""Composite operators as PyTorch takes them apart: torch_npu's way asks CANN first whether a 950 compiles."""

COPIES: dict[str, Callable[..., Any]] = {
    "aten::copy_": _copy_,
    "aten::_copy_from": _copy_from,
    "aten::_copy_from_and_resize": _copy_from_and_resize,
    "aten::_to_copy": _to_copy,
}
"""Kernels whose arguments may be on either side."""
