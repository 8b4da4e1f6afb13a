"""Weights beside the graphs: each is written once, and every graph finds its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxscript import ir

from mergevq.export.manifest import GraphSpec, Role, read_manifest
from mergevq.export.rewrites import shared_weights
from mergevq.export.rewrites.shared_weights import SharedWeights


def holding(arrays: list[np.ndarray]) -> ir.Model:
    """A graph of nothing but weights."""
    values = [
        ir.Value(
            name=f"w{number}",
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=f"w{number}"),
        )
        for number, array in enumerate(arrays)
    ]
    graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 20}, name="weights")
    return ir.Model(graph, ir_version=10)


def described(file: str, role: Role) -> GraphSpec:
    return GraphSpec(file=file, role=role, inputs=(), outputs=())


def weights_of(path: Path) -> list[np.ndarray]:
    return [numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]


@pytest.fixture(autouse=True)
def _small_graphs_count(monkeypatch):
    monkeypatch.setattr(shared_weights, "INLINE_BYTES", 0)


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["f4", "f2", "i1"])), min_size=1, max_size=5),
        min_size=1,
        max_size=3,
    )
)
def test_every_graph_finds_its_weights_and_equal_ones_are_there_once(tmp_path_factory, graphs):
    folder = tmp_path_factory.mktemp("shared")
    shared = SharedWeights(folder)
    written = set()
    for number, drawn in enumerate(graphs):
        arrays = [
            np.random.default_rng(seed).integers(0, 9, (50 + seed, 90)).astype(kind) for seed, kind in drawn
        ]
        written |= {array.tobytes() for array in arrays if array.nbytes >= 4096}
        model = holding(arrays)
        shared.take(model, described(f"{number}.onnx", "encoder"))
        ir.save(model, folder / f"{number}.onnx")
        for found, wanted in zip(weights_of(folder / f"{number}.onnx"), arrays, strict=True):
            assert found.dtype == wanted.dtype and (found == wanted).all()
    assert (folder / "encoder.data").stat().st_size < sum(map(len, written)) + 4096 * len(written) + 1


def test_weights_begin_at_a_page(tmp_path):
    model = holding([np.ones(1025, dtype="f4"), np.zeros(2000, dtype="f4")])
    SharedWeights(tmp_path).take(model, described("step.onnx", "step"))
    assert [weight.const_value.offset for weight in model.graph.initializers.values()] == [0, 8192]
    assert (tmp_path / "generator.data").stat().st_size == 8192 + 8000


def test_a_small_graph_holds_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_weights, "INLINE_BYTES", 10_000)
    SharedWeights(tmp_path).take(holding([np.ones(2500, dtype="f4")]), described("step.onnx", "step"))
    assert list(tmp_path.iterdir()) == []


def large(path: Path) -> dict[bytes, int]:
    """The weights of a graph that do not stand in it, with their lengths."""
    return {each.tobytes(): each.nbytes for each in weights_of(path) if each.nbytes >= 4096}


def test_encoders_of_two_kept_counts_share_one_file(exported):
    one = large(exported / "encoder_k32.onnx")
    assert one == large(exported / "encoder_k17.onnx")
    size = read_manifest(exported).files["encoder.data"].bytes
    assert sum(one.values()) <= size < sum(one.values()) + 4096 * len(one)


def test_first_pass_step_and_heads_share_one_file(exported_generator):
    _, folder = exported_generator
    prefill, step, *heads = (
        large(folder / f"{name}.onnx") for name in ("prefill", "step", "head_0", "head_1")
    )
    own = sum(
        length for weight, length in prefill.items() if weight not in step
    )  # an instruction, of merge_ar
    assert own < 0.05 * sum(step.values())
    once = prefill | step | heads[0] | heads[1]
    size = read_manifest(folder).files["generator.data"].bytes
    assert sum(once.values()) <= size < sum(once.values()) + 4096 * len(once)
