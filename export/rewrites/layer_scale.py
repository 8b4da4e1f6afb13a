"""LayerScale multiplied into the weights of the layer before it, which then costs nothing.

A branch of a block ends in `(x W + b) s` with s of the width of the model: the same as `x (W s) + b s`. PyTorch takes s
as a pass of its own over every token.

Source: LayerScale of CaiT (arXiv:2103.17239), Section 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mergevq.export.rewrites.constants import add_constant, numbers, remove_unused


class _Branch(NamedTuple):
    """The end of a branch."""

    product: Any
    """The node of x W."""
    shift: Any
    """The node that adds b."""
    factors: np.ndarray
    """s: (D,)."""


def fold_layer_scale(model: Any) -> None:
    """Rewrites `(x W + b) s` as `x (W s) + b s`, where nothing else needs what stands in between.

    Args:
        model: of onnxscript's `ir`, in float32: constants in another precision are left alone; it is changed.
    """
    from onnxscript import ir

    graph = model.graph
    for node in list(graph):
        branch = _branch(node)
        if branch is None:
            continue
        scaled, scale = node.outputs[0], node.inputs[1]
        for layer in (branch.product, branch.shift):
            before = layer.inputs[1]
            name = f"{scaled.name}.{layer.op_type}"
            layer.replace_input_with(1, add_constant(graph, name, numbers(before) * branch.factors))
            remove_unused(graph, [before])
        ir.convenience.replace_all_uses_with(scaled, branch.shift.outputs[0])
        graph.remove(node, safe=True)
        remove_unused(graph, [scale])


def _branch(node: Any) -> _Branch | None:
    """What a multiplication ends; None where it is another one."""
    if node.op_type != "Mul" or node.outputs[0].is_graph_output():
        return None
    factors = numbers(node.inputs[1])
    shift = _only_producer(node.inputs[0], "Add")
    product = None if shift is None else _only_producer(shift.inputs[0], "MatMul")
    if product is None or factors is None or factors.ndim != 1:
        return None
    weight, bias = numbers(product.inputs[1]), numbers(shift.inputs[1])
    if weight is None or bias is None or weight.dtype != np.float32:
        return None
    fits = weight.shape[-1:] == bias.shape == factors.shape
    return _Branch(product, shift, factors) if fits else None


def _only_producer(value: Any, operator: str) -> Any:
    """The node that makes a value for one user alone, if it is of this kind."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    return node if node is not None and node.op_type == operator else None
