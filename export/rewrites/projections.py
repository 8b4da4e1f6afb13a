"""Queries, keys and values by a product each.

The model makes all three by one product and takes its columns apart, which PyTorch does without moving a number. In a
graph it is a transposition of five axes and three copies; three products with the same columns need none of them.

Legend: B batch, T tokens, D width, M heads, E head width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mergevq.export.rewrites.constants import add_constant, numbers


class _Joint(NamedTuple):
    """One product for queries, keys and values, up to where they are taken apart."""

    x: Any
    """(B, T, D)."""
    weight: np.ndarray
    """(D, 3 D)."""
    bias: np.ndarray
    """(3 D,)."""
    shape: np.ndarray
    """That of each part: B, T, M, E."""
    parts: list[Any]
    """Of queries, keys and values the node that takes it: (B, M, T, E)."""


def split_projections(model: Any) -> None:
    """Rewrites a product whose columns are taken apart into three as three products; where T is fixed, not else.

    Args:
        model: of onnxscript's `ir`; it is changed.
    """
    from onnxscript.ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    for node in list(graph):
        joint = _joint(node)
        if joint is None:
            continue
        for part, weight, bias in zip(
            joint.parts, np.split(joint.weight, 3, axis=1), np.split(joint.bias, 3), strict=True
        ):
            _replace(graph, part, joint, np.ascontiguousarray(weight), bias)
    RemoveUnusedNodesPass()(model)


def _joint(node: Any) -> _Joint | None:
    """What a transposition to (3, B, M, T, E) belongs to; None where it is another one."""
    if node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != [2, 0, 3, 1, 4]:
        return None
    chain, value = [], node.inputs[0]
    for operator in ("Reshape", "Add", "MatMul"):
        producer = value.producer()
        if producer is None or producer.op_type != operator:
            return None
        chain.append(numbers(producer.inputs[1]))
        value = producer.inputs[0]
    shape, bias, weight = chain
    parts = _parts(node)
    if shape is None or bias is None or weight is None or parts is None or shape[2] != 3:
        return None
    return _Joint(value, weight, bias, np.delete(shape, 2), parts)


def _parts(node: Any) -> list[Any] | None:
    """The nodes that take the first, second and third of a first axis of three, in this order."""
    taken = {}
    for part, _ in node.outputs[0].uses():
        bounds = [numbers(value) for value in part.inputs[1:4]] if part.op_type == "Slice" else []
        squeezed = [user for user, _ in part.outputs[0].uses()]
        if any(each.op_type != "Squeeze" for each in squeezed) or len(squeezed) != 1:
            return None
        taken[tuple(int(bound.item()) for bound in bounds if bound is not None)] = squeezed[0]
    wanted = [(first, first + 1, 0) for first in range(3)]
    return [taken[bounds] for bounds in wanted] if sorted(taken) == wanted else None


def _replace(graph: Any, part: Any, joint: _Joint, weight: np.ndarray, bias: np.ndarray) -> None:
    """Puts a product of its own in the place of a part."""
    from onnxscript import ir

    before = part.outputs[0]
    held = {
        name: add_constant(graph, f"{before.name}.{name}", array)
        for name, array in {"weight": weight, "bias": bias, "shape": joint.shape}.items()
    }
    product = ir.node("MatMul", [joint.x, held["weight"]])
    shifted = ir.node("Add", [product.outputs[0], held["bias"]])
    shaped = ir.node("Reshape", [shifted.outputs[0], held["shape"]])
    turned = ir.node("Transpose", [shaped.outputs[0]], {"perm": [0, 2, 1, 3]})
    graph.insert_before(part, [product, shifted, shaped, turned])
    made = turned.outputs[0]
    made.name, made.type, made.shape = before.name, before.type, before.shape
    ir.convenience.replace_all_uses_with(before, made)
