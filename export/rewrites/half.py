"""What float16 autocast leaves to be done in an exported model, so that it is a valid and a small one.

Both functions change nothing in a float32 model.
"""

from __future__ import annotations

from typing import Any

_NORMS = frozenset({"InstanceNormalization", "LayerNormalization"})


def norms_in_float32(model: Any) -> None:
    """Has normalisations computed in float32, as autocast has them on CUDA.

    On the CPU it has them in float16 with float32 weights, which PyTorch allows and ONNX does not.

    Args:
        model: of onnxscript's `ir`; it is changed.
    """
    from onnxscript import ir

    graph = model.graph
    for node in list(graph):
        if node.op_type not in _NORMS or all(each.dtype != ir.DataType.FLOAT16 for each in node.inputs):
            continue
        for number, value in enumerate(node.inputs):
            if value.dtype != ir.DataType.FLOAT:
                up = _cast(value, ir.DataType.FLOAT)
                graph.insert_before(node, up)
                node.replace_input_with(number, up.outputs[0])
        normalised = node.outputs[0]
        down = _cast(normalised, ir.DataType.FLOAT16)
        normalised.dtype = ir.DataType.FLOAT
        graph.insert_after(node, down)
        for user, number in list(normalised.uses()):
            if user is not down:
                user.replace_input_with(number, down.outputs[0])


def fold_casts(model: Any) -> None:
    """Stores weights that are only ever used in float16 as float16: autocast casts them in every pass.

    Args:
        model: of onnxscript's `ir`; it is changed.
    """
    from onnxscript import ir

    graph, half = model.graph, ir.DataType.FLOAT16
    for name, weight in list(graph.initializers.items()):
        casts = [user for user, _ in weight.uses()]
        if not casts or not all(
            node.op_type == "Cast" and node.attributes["to"].as_int() == half for node in casts
        ):
            continue
        folded = ir.Value(
            name=f"{name}.half",
            type=ir.TensorType(half),
            shape=weight.shape,
            const_value=ir.tensor(weight.const_value.numpy().astype(half.numpy())),
        )
        graph.register_initializer(folded)
        for node in casts:
            ir.convenience.replace_all_uses_with(node.outputs[0], folded)
            graph.remove(node, safe=True)
        del graph.initializers[name]


def _cast(value: Any, kind: Any) -> Any:
    """A node that casts a value."""
    from onnxscript import ir

    node = ir.node("Cast", [value], {"to": kind})
    node.outputs[0].dtype = kind
    node.outputs[0].shape = value.shape
    return node
