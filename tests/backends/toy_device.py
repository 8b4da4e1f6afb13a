"""A device from elsewhere, as a third party would ship it: one module, found by its entry point.

Its tensors are PyTorch's PrivateUse1 under the name `toy`; their values lie in CPU tensors, and every operator
of PyTorch is computed there. That is enough to be a device type of its own to everything in mergevq.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from mergevq.backends import OK, Device, Probe, Reject, swiglu


class ToyModule(_DummyBackendModule):
    """What PyTorch wants to know of the device, as `torch.toy`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("toy", backend_module=ToyModule())
GENERIC = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
CALLS: list[str] = []


class ToyTensor(torch.Tensor):
    """A tensor of the device; a view is a copy."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    values: torch.Tensor

    @staticmethod
    def wrap(values: torch.Tensor) -> ToyTensor:
        made = torch._C._acc.create_empty_tensor(values.shape, values.dtype)
        made.__class__ = ToyTensor
        made.values = values.contiguous()
        return made


def run_on_cpu(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Computes an operator of PyTorch on the values; what it changes in place stays the same tensor."""
    wrappers = {}

    def unwrap(value: Any) -> Any:
        if isinstance(value, ToyTensor):
            wrappers[id(value.values)] = value
            return value.values
        return torch.device("cpu") if isinstance(value, torch.device) else value

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return wrappers[id(value)] if id(value) in wrappers else ToyTensor.wrap(value)

    args, kwargs = tree_map(unwrap, (args, kwargs))
    # Numbers arrive where the overload that was called has tensors: another one takes them.
    operator = getattr(operator, "overloadpacket", operator)
    return tree_map(wrap, operator(*args, **kwargs))


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Copies between the devices."""
    values = [tensor.values if isinstance(tensor, ToyTensor) else tensor for tensor in (source, target)]
    values[1].copy_(values[0])
    return target


EVERYTHING = torch.library.Library("_", "IMPL")
EVERYTHING.fallback(run_on_cpu, "PrivateUse1")
ATEN = torch.library.Library("aten", "IMPL")
ATEN.impl("_copy_from", copy_from, "PrivateUse1")
ATEN.impl("convolution_overrideable", partial(run_on_cpu, torch.ops.aten.convolution), "PrivateUse1")
# For these PyTorch has ways that would make the result itself, without values.
for full in torch._C._dispatch_get_all_op_names():
    space, _, name = full.partition("::")
    packet = name.partition(".")[0]
    generic = any(torch._C._dispatch_has_kernel_for_dispatch_key(full, key) for key in GENERIC)
    if space == "aten" and generic and "out" not in name and packet not in ("_to_copy", "copy", "copy_"):
        ATEN.impl(name, partial(run_on_cpu, getattr(torch.ops.aten, packet)), "PrivateUse1")


class ToyDevice(Device):
    """The device."""

    name = "toy"
    distributed_backend = "gloo"

    def probe(self) -> Probe:
        return Probe(True, "made of wood", 1)

    def capabilities(self) -> dict[str, str]:
        return {"material": "wood"}


def even(gate: torch.Tensor, value: torch.Tensor) -> Reject | None:
    return OK if gate.shape[-1] % 2 == 0 else Reject(f"{gate.shape[-1]} features, an even number is wanted")


@swiglu.impl("toy", name="wooden", when=even)
def swiglu_wooden(gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Not the reference's arithmetic, so that a test can tell them apart."""
    CALLS.append("wooden")
    return gate / (1 + (-gate).exp()) * value


DEVICE = ToyDevice()
