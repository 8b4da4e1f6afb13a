"""A module as an ONNX model: torch.export with named axes, in float32 or under float16 autocast.

torch.export takes an axis of length 1 for a fixed one, so every named axis is traced at another length than 1,
the batch at 3. Integers and truth values are the same in every precision, and floats cross the border as float32.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from mergevq.errors import ExportError
from mergevq.export.manifest import Axes, GraphSpec, Precision

OPSET = 20
"""From 23 on attention becomes one operator that neither ONNX Runtime nor TensorRT-RTX take in all its forms."""

TRACED_AT = {"batch": 3, "keep": 5, "tokens": 3, "past": 4}
"""The length at which each axis is traced."""

_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


@dataclass(frozen=True)
class Plan:
    """A graph to be made.

    Attributes:
        spec: what it is to be.
        module: takes the inputs of `spec` in their order and returns its outputs.
    """

    spec: GraphSpec
    module: nn.Module


class _Bordered(nn.Module):
    """A module in a precision; floats come out as float32."""

    def __init__(self, module: nn.Module, precision: Precision):
        super().__init__()
        self.module = module
        self.mixed = precision == "fp16"

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Autocast, and not half weights: what the model does in float32 in training stays so, merging above all.
        context = torch.autocast("cpu", torch.float16) if self.mixed else contextlib.nullcontext()
        with context:
            outputs = self.module(*inputs)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        return tuple(each.float() if each.is_floating_point() else each for each in outputs)


def traced(plan: Plan, axes: Axes, precision: Precision) -> Any:
    """The ONNX model (of onnxscript's `ir`) of a plan, as the exporter makes it.

    Args:
        plan: the module in evaluation mode, on the CPU.
        axes: the range of each axis with a name.
        precision: of the computation; what is to become int8 is traced in float32.

    Raises:
        ExportError: PyTorch cannot trace or translate it.
    """
    module = _Bordered(plan.module, precision).eval()
    example = tuple(
        torch.zeros([_traced_length(length) for length in tensor.shape], dtype=_DTYPES[tensor.dtype])
        for tensor in plan.spec.inputs
    )
    dims = {name: Dim(name, min=least, max=most) for name, (least, most) in axes.items()}
    shapes = tuple(_dynamic(tensor.shape, dims) for tensor in plan.spec.inputs)
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(module, example, dynamic_shapes=(shapes,), strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[tensor.name for tensor in plan.spec.inputs],
                output_names=[tensor.name for tensor in plan.spec.outputs],
                verbose=False,
            )
        except Exception as error:  # whatever PyTorch meets: there is no common class
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ExportError(f"{plan.spec.file} cannot be made: {reason}") from error
    assert exported is not None
    return exported.model


def _traced_length(length: int | str) -> int:
    if isinstance(length, int):
        return length
    return sum(TRACED_AT[name] for name in length.split(" + "))


def _dynamic(shape: tuple[int | str, ...], dims: Mapping[str, Any]) -> dict[int, Any]:
    """Named axes by number; the length of a sum follows from the others."""
    return {
        number: dims.get(length, Dim.AUTO) for number, length in enumerate(shape) if isinstance(length, str)
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about its own dealings."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
