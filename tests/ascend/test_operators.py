"""Every operator on the NPU, whichever implementation it takes, against the reference on the CPU."""

from __future__ import annotations

import pytest
import torch

from mergevq.backends import operators

CHOICES = [
    pytest.param(operator, run, id=f"{operator.name}-{name}")
    for operator in operators().values()
    for name, run, _ in [
        ("chosen", operator, None),
        ("reference", operator.reference, None),
        *((each.name, each.run, each.when) for each in operator.implementations("npu")),
    ]
]


CONSTANT = {"rope": (1, 2), "sized_attention": (3,)}
"""Arguments of operators, by place, that no training wants a gradient of: angles, sizes."""


def leaves(operator, device, dtype, differentiable):
    """An operator's example on a device, the floating arguments in a dtype."""
    found = []
    for place, value in enumerate(operator.example(torch.device("cpu"))):
        if isinstance(value, torch.Tensor):
            value = value.detach().to(device)
            if value.is_floating_point():
                wanted = differentiable and place not in CONSTANT.get(operator.name, ())
                value = value.to(dtype).requires_grad_(wanted)
        found.append(value)
    return found


def results(run, arguments):
    """Outputs, and the gradients of a fixed functional of those that have one."""
    outputs = run(*arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = [value for value in arguments if isinstance(value, torch.Tensor) and value.requires_grad]
    total = sum(output.float().sin().sum() for output in outputs if output.requires_grad)
    gradients = (
        torch.autograd.grad(total, wanted, allow_unused=True) if isinstance(total, torch.Tensor) else ()
    )
    return [*outputs, *(each for each in gradients if each is not None)]


def assert_close(got, wanted, tolerance):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        exact = not other.is_floating_point()
        bound = 0 if exact else tolerance
        torch.testing.assert_close(one.detach().cpu(), other.detach(), atol=bound, rtol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("differentiable", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("operator", "run"), CHOICES)
def test_is_the_reference_of_the_cpu(operator, run, differentiable, dtype):
    """In strict mode: a call that no implementation accepts would raise, unless all of them are optional."""
    there = leaves(operator, "npu", dtype, differentiable)
    refusals = [each.when(*there) for each in operator.implementations("npu") if each.run is run]
    if refusals and refusals[0] is not None:
        pytest.skip(f"refuses it: {refusals[0].reason}")
    got = results(run, there)
    wanted = results(operator.reference, leaves(operator, "cpu", dtype, differentiable))
    assert_close(got, wanted, 2e-6 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("operator", operators().values(), ids=lambda operator: operator.name)
def test_every_implementation_is_reached(operator):
    """Some call that a model makes takes it: what nothing accepts would be tested by nothing."""
    for each in operator.implementations("npu"):
        calls = (
            leaves(operator, "npu", dtype, differentiable)
            for dtype in (torch.float32, torch.bfloat16)
            for differentiable in (False, True)
        )
        assert any(each.when(*call) is None for call in calls), each.name
