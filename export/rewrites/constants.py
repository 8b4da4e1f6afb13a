"""Weights of a graph that is being rewritten: read as arrays, put in, and taken out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def numbers(value: Any) -> np.ndarray | None:
    """The numbers of a constant, of onnxscript's `ir`; None for anything else."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def add_constant(graph: Any, name: str, array: np.ndarray) -> Any:
    """A new initializer of a graph."""
    from onnxscript import ir

    held = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(held)
    return held


def remove_unused(graph: Any, values: Iterable[Any]) -> None:
    """Takes initializers out that nothing uses any more."""
    for value in values:
        if not value.uses():
            graph.initializers.pop(value.name, None)
