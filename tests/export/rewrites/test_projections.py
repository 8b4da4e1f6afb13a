"""Queries, keys and values get a product each where one was taken apart, and nothing else is rewritten."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from onnxscript import ir

from mergevq.export.rewrites.projections import split_projections
from mergevq.models.layers import SelfAttention

B, T, M, E = 2, 5, 2, 4
D = M * E


def taken_apart(order: tuple[int, ...] = (0, 1, 2), perm: tuple[int, ...] = (2, 0, 3, 1, 4)) -> ir.Model:
    """(B, T, D) to three parts of (B, T, 3 D), of which the outputs are named by the number that they take."""
    generator = np.random.default_rng(0)
    constants = {
        "weight": generator.normal(size=(D, 3 * D)).astype(np.float32),
        "bias": generator.normal(size=3 * D).astype(np.float32),
        "shape": np.array([-1, T, 3, M, E]),
        "first": np.array([0]),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "shape"], ["shaped"]),
        helper.make_node("Transpose", ["shaped"], ["turned"], perm=perm),
    ]
    for number in order:
        constants |= {f"from{number}": np.array([number]), f"to{number}": np.array([number + 1])}
        bounds = [f"from{number}", f"to{number}", "first"]
        nodes += [
            helper.make_node("Slice", ["turned", *bounds], [f"slice{number}"]),
            helper.make_node("Squeeze", [f"slice{number}", "first"], [f"part{number}"]),
            helper.make_node("Neg", [f"part{number}"], [f"y{number}"]),
        ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", T, D])],
        [helper.make_tensor_value_info(f"y{number}", onnx.TensorProto.FLOAT, [None] * 4) for number in order],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def run(model: ir.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(
        None, {each.name: given for each, given in zip(session.get_inputs(), inputs, strict=True)}
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_each_part_gets_the_columns_that_it_took(order):
    model = taken_apart(order)
    weight, bias = (
        model.graph.initializers[name].const_value.numpy().astype(np.float64) for name in ("weight", "bias")
    )
    split_projections(model)
    assert operators(model).count("MatMul") == 3 and not {"Slice", "Squeeze"} & set(operators(model))
    x = np.random.default_rng(1).normal(size=(B, T, D)).astype(np.float32)
    parts = (x.astype(np.float64) @ weight + bias).reshape(B, T, 3, M, E).transpose(2, 0, 3, 1, 4)
    for number, found in zip(order, run(model, x), strict=True):
        np.testing.assert_allclose(found, -parts[number], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"order": (0, 1)}, {"order": (0, 2)}, {"perm": (2, 0, 1, 3, 4)}], ids=str
)
def test_what_is_taken_apart_otherwise_stays(settings):
    model = taken_apart(**settings)
    before = operators(model)
    split_projections(model)
    assert operators(model) == before


def test_what_the_exporter_makes_of_attention():
    torch.manual_seed(0)
    attention, x = SelfAttention(D, M).eval(), torch.randn(B, T, D)
    shapes = ({0: torch.export.Dim("batch")}, None)
    program = torch.export.export(attention, (x, None), dynamic_shapes=shapes)
    model = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False).model
    before = operators(model)
    split_projections(model)
    assert operators(model).count("MatMul") == before.count("MatMul") + 2
    assert operators(model).count("Squeeze") == before.count("Squeeze") - 3
    outputs = run(model, x.numpy())  # first: the graph holds the weights of the module
    with torch.no_grad():
        expected = attention.double()(x.double(), None)
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(found).double(), wanted, rtol=1e-5, atol=1e-5)


def test_graphs_are_written_so(exported):
    for name in ("encoder_k32", "encoder_k17", "decoder"):
        model = ir.from_proto(onnx.load(str(exported / f"{name}.onnx"), load_external_data=False))
        turned = [
            tuple(node.attributes["perm"].as_ints()) for node in model.graph if node.op_type == "Transpose"
        ]
        assert turned and (2, 0, 3, 1, 4) not in turned, name
