"""Keys are turned around by one node, and other transpositions stay as they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from onnxscript import ir

from mergevq.export.rewrites.key_transposes import transpose_keys_at_once


class Attention(torch.nn.Module):
    def forward(self, query, key, value, mask):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def transpositions(model: ir.Model) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(node.attributes["perm"].as_ints()) for node in model.graph if node.op_type == "Transpose"
    )


def run(model: ir.Model, *inputs: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(
        None, {each.name: given for each, given in zip(session.get_inputs(), inputs, strict=True)}
    )[0]


def test_what_the_exporter_makes_of_attention():
    query, key, value = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = torch.ones(2, 1, 4, 7, dtype=torch.bool).tril(3)
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("cached")}
    shapes = ({0: axes[0]}, axes, axes, {0: axes[0], 3: axes[2]})
    given = (query, key, value, mask)
    program = torch.export.export(Attention(), given, dynamic_shapes=shapes)
    model = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False).model
    before = len(list(model.graph))
    assert (0, 2, 1) in transpositions(model)
    transpose_keys_at_once(model)
    assert transpositions(model) == {(0, 1, 3, 2): 1}
    assert len(list(model.graph)) < before
    found = run(model, *(each.numpy() for each in given))
    expected = Attention()(*(each.double() if each.is_floating_point() else each for each in given))
    torch.testing.assert_close(torch.from_numpy(found).double(), expected, rtol=1e-5, atol=1e-5)


def test_another_rearrangement_stays():
    """(2, 6, 4) through (2, 4, 6) to a shape that is not that of the input with its axes swapped."""
    shapes = {"flat": [6, 4, 2], "other": [2, 3, 8, 1]}
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "flat"], ["y"]),
            helper.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1]),
            helper.make_node("Reshape", ["z", "other"], ["w"]),
            helper.make_node("Neg", ["w"], ["out"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4, 2])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3, 8, 1])],
        [
            onnx.numpy_helper.from_array(np.array(shape, dtype=np.int64), name)
            for name, shape in shapes.items()
        ],
        value_info=[helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3, 8, 1])],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    )
    transpose_keys_at_once(model)
    assert [node.op_type for node in model.graph] == ["Reshape", "Transpose", "Reshape", "Neg"]


def test_graphs_are_written_so(exported):
    for name in ("decoder", "recovery", "encoder_k32"):
        model = ir.from_proto(onnx.load(str(exported / f"{name}.onnx"), load_external_data=False))
        assert (0, 1, 3, 2) in transpositions(model), name
