"""Makes recorded calls again with torch_npu's own kernels: `python replay.py CALLS`, with EMU_NPU_KERNELS=0.

The kernels below refuse everything. A call that is not refused has computed on the host, or has nothing to compute.
In: calls, saved by `torch.save`. Out: a line for each of those, among what torch_npu says.
"""

from __future__ import annotations

import ctypes
import sys

import torch
from calls import Call, Format, Shape

from mergevq.backends.npu.lightning import NpuAccelerator

torch.serialization.add_safe_globals([Call, Format, Shape])

FOUND = "on the host"
"""How a line about a call begins."""

EMPTY = (
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::_local_scalar_dense",
    "aten::is_pinned",
    "aten::_pin_memory",
    "aten::_unsafe_view",
    "aten::record_stream",
)
"""Operators that give memory, or look at it."""

COPIES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from", "npu::_npu_dtype_cast")
"""Operators that copy, and may change the dtype."""


def has_nothing_to_compute(call: Call) -> bool:
    """Whether a call makes a view, gives memory, copies it, or has no elements to work on."""
    if call.operator.partition(".")[0] in EMPTY:
        return True
    schema = call.overload._schema
    if any(each.alias_info is not None and not each.alias_info.is_write for each in schema.returns):
        return True
    if call.shapes and all(0 in shape.size for shape in call.shapes):
        return True
    if call.operator == "aten::pow.Tensor_Scalar" and call.arguments[1] == 1:  # a copy
        return True
    return call.operator in COPIES and is_plain_copy(call)


def is_plain_copy(call: Call) -> bool:
    """Whether a copy moves bytes as they are, which takes no kernel."""
    asked = [*call.arguments, *call.options.values()]
    dtypes = {each for each in asked if isinstance(each, torch.dtype)}
    return len(dtypes | {shape.dtype for shape in call.shapes}) == 1


def main(path: str) -> None:
    """Replays and reports."""
    library = ctypes.CDLL("libascend_emulation.so")
    NpuAccelerator().setup_device(torch.device("npu:0"))  # as for the run that was recorded
    for number, call in torch.load(path, weights_only=True).items():
        if has_nothing_to_compute(call):
            continue
        before = library.emu_refusals()
        try:
            call.again()
            outcome = "returned"
        except Exception as error:
            outcome = str(error).splitlines()[0] if str(error) else type(error).__name__
        if library.emu_refusals() == before:
            print(f"{FOUND} {number}: {outcome}")


if __name__ == "__main__":
    main(sys.argv[1])
