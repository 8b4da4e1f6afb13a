"""Keys of attention turned around in one step.

The exporter flattens batch and heads, swaps the axes of the keys, and restores the shape, with a dozen nodes that
work that shape out. One transposition says the same, and run times join it to the product that follows.

Legend: B batch, M heads, T tokens, E head width.
"""

from __future__ import annotations

from typing import Any


def transpose_keys_at_once(model: Any) -> None:
    """Rewrites Reshape, Transpose, Reshape of (B, M, T, E) to (B, M, E, T) as one Transpose.

    Args:
        model: of onnxscript's `ir`; it is changed.
    """
    from onnxscript import ir
    from onnxscript.ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    for node in list(graph):
        ends = _ends(node)
        if ends is None:
            continue
        keys, turned = ends
        once = ir.node("Transpose", [keys], {"perm": [0, 1, 3, 2]})
        value = once.outputs[0]
        value.type, value.shape = turned.type, turned.shape
        graph.insert_before(node, once)
        ir.convenience.replace_all_uses_with(turned, value)
    RemoveUnusedNodesPass()(model)


def _ends(node: Any) -> tuple[Any, Any] | None:
    """What goes into the three nodes around a Transpose, and what comes out; None where it is another one."""
    if node.op_type != "Transpose" or list(node.attributes["perm"].as_ints()) != [0, 2, 1]:
        return None
    before = node.inputs[0].producer()
    after = [user for user, _ in node.outputs[0].uses()]
    if before is None or [each.op_type for each in (before, *after)] != ["Reshape", "Reshape"]:
        return None
    keys, turned = before.inputs[0], after[0].outputs[0]
    if turned.is_graph_output() or any(each.shape is None or len(each.shape) != 4 for each in (keys, turned)):
        return None
    # Axes of the keys in another order; a shape from elsewhere would be another rearrangement.
    return (keys, turned) if all(_is_made_of(each.inputs[1], keys) for each in (before, after[0])) else None


def _is_made_of(shape: Any, keys: Any) -> bool:
    """Whether a shape is put together from numbers and pieces of the shape of `keys`."""
    joined = shape.producer()
    if joined is None or joined.op_type != "Concat":
        return False
    slices = [piece.producer() for piece in joined.inputs if piece.const_value is None]
    return all(
        piece is not None
        and piece.op_type == "Slice"
        and (source := piece.inputs[0].producer()) is not None
        and source.op_type == "Shape"
        and source.inputs[0] is keys
        for piece in slices
    )
