"""Graphs with Winograd's convolutions: the same numbers, where it pays and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import ir

from mergevq.cli import main
from mergevq.errors import UsageError
from mergevq.export import build_engines, export_onnx, read_manifest
from mergevq.export.rewrites import winograd


def graph_of(
    channels: int, side: int | str, bias: bool = True, kernel: int = 3, **attributes: object
) -> ir.Model:
    """One convolution of random numbers, (batch, C, side, side) to as many channels."""
    generator = np.random.default_rng(0)
    groups = attributes.get("group", 1)
    assert isinstance(groups, int)
    shape = (channels, channels // groups, kernel, kernel)
    weights = {"weight": generator.normal(size=shape) / channels, "bias": generator.normal(size=channels)}
    names = list(weights)[: 1 + bias]
    settings = {"pads": [kernel // 2] * 4, **attributes}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", *names], ["y"], name="convolution", **settings)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", channels, None, None])],
        [numpy_helper.from_array(weights[name].astype(np.float32), name) for name in names],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def kernels(model: ir.Model) -> list[int]:
    """The width of the kernel of each convolution."""
    return [node.inputs[1].shape[3] for node in model.graph if node.op_type == "Conv"]


def numbers(model: ir.Model, name: str) -> torch.Tensor | None:
    """A weight in float64; None where there is none."""
    held = model.graph.initializers.get(name)
    return None if held is None else torch.from_numpy(held.const_value.numpy().astype(np.float64))


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("channels", "side"), [(128, 64), (160, 4), (256, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_result_is_that_of_the_convolution(channels, side, bias, batch):
    model = graph_of(channels, side, bias)
    weight, shift = (numbers(model, name) for name in ("weight", "bias"))
    winograd.use_winograd(model)
    assert sorted(kernels(model)) == [1, 6]
    assert "weight" not in model.graph.initializers
    x = np.random.default_rng(1).normal(size=(batch, channels, side, side)).astype(np.float32)
    expected = torch.nn.functional.conv2d(torch.from_numpy(x).double(), weight, shift, padding=1)
    torch.testing.assert_close(torch.from_numpy(run(model, x)).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "side", "settings"),
    [
        (64, 16, {}),
        (128, 128, {}),
        (128, 6, {}),
        (128, "side", {}),
        (128, 16, {"strides": [2, 2]}),
        (128, 16, {"dilations": [2, 2]}),
        (256, 16, {"group": 2}),
        (128, 16, {"pads": [1, 1, 0, 0]}),
        (128, 16, {"kernel": 1}),
    ],
)
def test_what_does_not_pay_stays(channels, side, settings):
    model = graph_of(channels, side, **settings)
    winograd.use_winograd(model)
    assert [node.op_type for node in model.graph] == ["Conv"]


def test_what_has_no_known_shape_stays():
    model = graph_of(128, 16)
    model.graph.inputs[0].shape = None
    winograd.use_winograd(model)
    assert [node.op_type for node in model.graph] == ["Conv"]


@pytest.fixture(scope="module")
def rewritten(tiny_tokenizer, tmp_path_factory) -> Path:
    """An export of the tiny tokenizer that has verified itself; every 3 x 3 convolution that can be is rewritten."""
    out = tmp_path_factory.mktemp("winograd") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_CHANNELS", 1)
        export_onnx(tiny_tokenizer, out, winograd=True)
    return out


def test_an_export_says_so_and_is_as_large_as_before(rewritten, exported, capsys):
    def size(folder: Path, name: str) -> int:
        return sum(path.stat().st_size for path in folder.glob(f"{name}*"))

    assert read_manifest(rewritten).winograd and not read_manifest(exported).winograd
    graph = onnx.load(str(rewritten / "decoder.onnx")).graph
    assert "DepthToSpace" in {node.op_type for node in graph.node}
    assert size(rewritten, "decoder") < 1.5 * size(exported, "decoder")  # names, and 5 kB a convolution
    assert main(["export", "inspect", str(rewritten)]) == 0
    assert "fp32 with Winograd's convolutions" in capsys.readouterr().out


def test_it_is_not_for_engines(rewritten):
    with pytest.raises(UsageError, match="was exported for CPUs, with --winograd"):
        build_engines(rewritten)


def test_it_is_not_for_half_precision(tmp_path, tiny_tokenizer):
    with pytest.raises(UsageError, match="leave --winograd or --precision fp16 out"):
        export_onnx(tiny_tokenizer, tmp_path / "out", precision="fp16", winograd=True)
    assert list(tmp_path.iterdir()) == []
