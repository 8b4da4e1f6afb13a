"""LayerScale goes into the weights before it, and other products by a constant stay where they are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from onnxscript import ir

from mergevq.export.rewrites.layer_scale import fold_layer_scale

LENGTHS = {"weight": (4, 6), "bias": (6,), "scale": (6,), "other": (4, 6), "row": (1, 6)}


class Branch(torch.nn.Module):
    """A residual branch as blocks have it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 6)
        self.scale = torch.nn.Parameter(torch.tensor([1e-5, -2.0, 0.0, 0.1, 3.0, 1.0]))

    def forward(self, x):
        return x + self.layer(x) * self.scale


def graph_of(nodes: list[onnx.NodeProto], outputs: list[str], kind: type = np.float32) -> ir.Model:
    """Nodes of `x` (B, 5, 4) and random constants of `LENGTHS`."""
    generator = np.random.default_rng(0)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", element, ["batch", 5, 4])],
        [helper.make_tensor_value_info(name, element, [None] * 3) for name in outputs],
        [
            numpy_helper.from_array(generator.normal(size=shape).astype(kind), name)
            for name, shape in LENGTHS.items()
            if name in used
        ],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def nodes_of(scale: str = "scale", weight: str = "weight") -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["x", weight], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["shifted"]),
        helper.make_node("Mul", ["shifted", scale], ["scaled"]),
    ]


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def test_what_the_exporter_makes_of_a_branch():
    torch.manual_seed(0)
    branch, x = Branch(), torch.randn(2, 5, 6)
    program = torch.export.export(branch, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    model = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False).model
    assert operators(model)["Mul"] == 1
    weights = len(model.graph.initializers)
    fold_layer_scale(model)
    assert operators(model) == {"MatMul": 1, "Add": 2}
    assert len(model.graph.initializers) == weights - 1
    found = torch.from_numpy(run(model, x.numpy())[0]).double()
    expected = branch.double()(x.double())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_weight_that_two_layers_share_is_scaled_for_one_alone():
    second = [
        helper.make_node("MatMul", ["x", "weight"], ["again"]),
        helper.make_node("Add", ["again", "bias"], ["plain"]),
    ]
    model = graph_of([*nodes_of(), *second, helper.make_node("Sub", ["scaled", "plain"], ["y"])], ["y"])
    weight, bias, scale = (
        model.graph.initializers[name].const_value.numpy().astype(np.float64)
        for name in ("weight", "bias", "scale")
    )
    fold_layer_scale(model)
    assert operators(model)["Mul"] == 0
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    shifted = x.astype(np.float64) @ weight + bias
    np.testing.assert_allclose(run(model, x)[0], shifted * scale - shifted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "outputs", "kind"),
    [
        (nodes_of(), ["scaled"], np.float32),
        (nodes_of(), ["scaled", "shifted"], np.float32),
        ([*nodes_of(), helper.make_node("Neg", ["product"], ["y"])], ["scaled", "y"], np.float32),
        ([*nodes_of("row"), helper.make_node("Neg", ["scaled"], ["y"])], ["y"], np.float32),
        ([*nodes_of(), helper.make_node("Neg", ["scaled"], ["y"])], ["y"], np.float16),
        ([helper.make_node("Mul", ["x", "x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])], ["y"], np.float32),
    ],
    ids=["an output of the graph", "two outputs", "used before", "scale of two axes", "float16", "no layer"],
)  # fmt: skip
def test_other_products_stay(nodes, outputs, kind):
    model = graph_of(nodes, outputs, kind)
    before = operators(model)
    fold_layer_scale(model)
    assert operators(model) == before


def test_graphs_are_written_so(exported, tiny_tokenizer):
    scales = [weight for name, weight in tiny_tokenizer.named_parameters() if "scale" in name]
    assert len(scales) == 8
    for name in ("encoder_k32", "decoder"):
        model = ir.from_proto(onnx.load(str(exported / f"{name}.onnx"), load_external_data=False))
        assert not [key for key in model.graph.initializers if "scale" in key]
