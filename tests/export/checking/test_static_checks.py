"""Each static check sees the fault that it is there for; graphs are made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mergevq.errors import CheckpointError
from mergevq.export.checking.static_checks import static_checks
from mergevq.export.manifest import GraphSpec, Manifest, TensorSpec, entry
from mergevq.presets import preset

SPEC = GraphSpec(
    file="head_0.onnx",
    role="head",
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 4)),),
)


def made(nodes=None, batch="batch", kind=TensorProto.FLOAT, name="y", opset=20) -> onnx.ModelProto:
    """A graph that adds one weight to its input, or does what `nodes` say."""
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "weight")
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "weight"], [name], name="add")],
        "graph",
        [helper.make_tensor_value_info("x", kind, [batch, 4])],
        [helper.make_tensor_value_info(name, kind, ["batch", 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def failures(model: onnx.ModelProto, folder: Path) -> dict[str, str]:
    """The checks that fail, with what they say."""
    onnx.save(model, str(folder / SPEC.file))
    return failures_of(folder)


def failures_of(folder: Path) -> dict[str, str]:
    manifest = Manifest(
        package="0",
        precision="fp32",
        opset=20,
        tokenizer=preset("tiny-32"),
        fingerprint="f",
        axes={"batch": (1, None)},
        graphs=(SPEC,),
        files={path.name: entry(path) for path in folder.iterdir()},
    )
    return {check.name: check.worst for check in static_checks(folder, manifest) if not check.passed}


def test_a_proper_graph_passes(tmp_path):
    assert failures(made(), tmp_path) == {}


def test_a_frozen_axis_is_seen(tmp_path):
    assert failures(made(batch=3), tmp_path) == {"inputs": "x is [3, 4] and should be ['batch', 4]"}


def test_a_free_axis_that_should_be_fixed_is_seen(tmp_path):
    model = made()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "width"
    assert failures(model, tmp_path) == {"outputs": "y is ['batch', 'width'] and should be ['batch', 4]"}


def test_another_type_is_seen(tmp_path):
    found = failures(made(kind=TensorProto.DOUBLE), tmp_path)
    assert found["inputs"] == "x is double and should be float32"


def test_another_name_is_seen(tmp_path):
    assert failures(made(name="z"), tmp_path) == {"outputs": "are ['z']"}


def test_another_operator_set_is_seen(tmp_path):
    assert "operator set" in failures(made(opset=21), tmp_path)


def test_a_reducing_scatter_is_seen(tmp_path):
    indices = numpy_helper.from_array(np.zeros((1, 4), dtype=np.int64), "indices")
    node = helper.make_node("ScatterElements", ["x", "indices", "row"], ["y"], name="s", reduction="add")
    model = made([node])
    model.graph.initializer.extend([indices, numpy_helper.from_array(np.zeros((1, 4), np.float32), "row")])
    assert failures(model, tmp_path)["operators"] == "ScatterElements with reduction (s)"
    model.graph.node[0].attribute[0].s = b"none"
    assert "operators" not in failures(model, tmp_path)


def test_a_denied_operator_is_seen_even_inside_another(tmp_path):
    inner = helper.make_graph(
        [
            helper.make_node("NonZero", ["x"], ["n"], name="hidden"),
            helper.make_node("Identity", ["x"], ["b"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch", 4])],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("If", ["condition"], ["y"], name="if", then_branch=inner, else_branch=inner)
    model = made([node])
    model.graph.initializer.append(condition)
    assert failures(model, tmp_path)["operators"].startswith("If")
    model.graph.node[0].op_type = "Identity"  # so that only the inner one is left to be found
    assert failures(model, tmp_path)["operators"] == "NonZero (hidden)"


@pytest.mark.parametrize(
    "text",
    [
        'File "/home/someone/project/encoder.py", line 12, in forward',
        "/opt/venv/lib/python3.11/site-packages/torch/nn/modules/module.py",
        "C:\\Users\\someone\\model.py",
    ],
)
def test_a_local_path_is_seen(tmp_path, text):
    model = made()
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=text)
    assert "local paths" in failures(model, tmp_path)


def test_names_with_slashes_are_no_paths(tmp_path):
    model = made()
    model.graph.node[0].name = "encoder/blocks/0/add"
    assert failures(model, tmp_path) == {}


def save_apart(folder: Path, location: str) -> None:
    onnx.save_model(
        made(), str(folder / SPEC.file), save_as_external_data=True, location=location, size_threshold=0
    )


def test_data_beside_the_graph_passes(tmp_path):
    save_apart(tmp_path, SPEC.data)
    assert failures_of(tmp_path) == {}


def test_data_of_another_name_is_seen(tmp_path):
    save_apart(tmp_path, "weights.bin")
    assert "which the manifest does not list" in failures_of(tmp_path)["external data"]


def test_data_that_is_too_short_is_seen(tmp_path):
    save_apart(tmp_path, SPEC.data)
    path = tmp_path / SPEC.data
    path.write_bytes(path.read_bytes()[:-4])
    assert "is shorter than weight needs" in failures_of(tmp_path)["external data"]


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_file_that_is_no_graph_is_seen(tmp_path, content):
    (tmp_path / SPEC.file).write_bytes(content)
    assert "checker" in failures_of(tmp_path)


def test_a_file_that_was_changed_since_is_refused(tmp_path):
    onnx.save(made(), str(tmp_path / SPEC.file))
    manifest = Manifest(
        package="0",
        precision="fp32",
        opset=20,
        tokenizer=preset("tiny-32"),
        fingerprint="f",
        axes={},
        graphs=(SPEC,),
        files={SPEC.file: entry(tmp_path / SPEC.file)},
    )
    (tmp_path / SPEC.file).write_bytes(b"truncated")
    with pytest.raises(CheckpointError, match="has 9 bytes"):
        static_checks(tmp_path, manifest)
