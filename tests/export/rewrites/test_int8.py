"""Generators with weights of 8 bits: what is rounded, what it costs, and that damage to it is found out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

import mergevq
from mergevq.errors import UsageError
from mergevq.export import build_engines, export_onnx, read_manifest, verify
from mergevq.export.generator.checks import _divergence
from mergevq.export.manifest import MANIFEST, entry, to_json
from mergevq.export.rewrites import int8, shared_weights

from ..conftest import small_generator


@pytest.fixture(scope="module")
def generator(tiny_tokenizer):
    return small_generator("merge_ar", tiny_tokenizer)


@pytest.fixture(scope="module")
def folder(generator, tmp_path_factory) -> Path:
    """With the weights of all large graphs in files of their own, before and after they are rounded."""
    out = tmp_path_factory.mktemp("int8") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_weights, "INLINE_BYTES", 500_000)
        patch.setattr(int8, "ONE_FILE_BYTES", 500_000)
        export_onnx(generator, out, precision="int8")
    return out


def kinds(file: Path) -> set[int]:
    """Types of the matrices in a graph."""
    return {each.data_type for each in onnx.load(str(file)).graph.initializer if len(each.dims) > 1}


def lost(report) -> float:
    return next(check.value for check in report.checks if check.name == "likelihood lost, nats a token")


def test_products_of_the_generator_are_in_integers_and_nothing_else_is(folder):
    for file in ("prefill.onnx", "step.onnx", "head_0.onnx", "head_1.onnx"):
        assert TensorProto.INT8 in kinds(folder / file)
        nodes = {node.op_type for node in onnx.load(str(folder / file)).graph.node}
        assert {"MatMulInteger", "DynamicQuantizeLinear"} <= nodes and "Gemm" not in nodes
    for file in ("decoder.onnx", "recovery.onnx"):
        assert TensorProto.INT8 not in kinds(folder / file)


def test_it_passes_with_a_loss_that_is_there_and_small(folder, generator):
    checks = json.loads((folder / "verify.json").read_text())["checks"]
    value = next(each["value"] for each in checks if each["name"] == "likelihood lost, nats a token")
    assert 1e-7 < value < 2e-2
    assert read_manifest(folder).precision == "int8"
    assert {"generator.data"} <= set(read_manifest(folder).files)


def test_the_run_time_generates_from_it(folder):
    images = mergevq.load(folder, runtime="onnx").generate([1, 4, 2], seed=0)
    assert images.shape == (3, 3, 32, 32) and np.isfinite(images).all()


def test_engines_of_it_are_refused_before_anything_is_built(folder):
    with pytest.raises(UsageError, match="holds int8 graphs"):
        build_engines(folder)
    assert not (folder / "engines").exists()


def test_a_wrong_scale_is_found_out(folder, generator, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "head_0.onnx"
    model = onnx.load(str(file))
    scale = next(each for each in model.graph.initializer if each.name.endswith("_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, scale.name))
    onnx.save(model, str(file))
    manifest = read_manifest(tmp_path)
    files = {**manifest.files, file.name: entry(file)}
    (tmp_path / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))
    report = verify(tmp_path, generator)
    assert not report.passed and lost(report) > 2e-2


def test_tokenizers_stay_as_they_are(tiny_tokenizer, tmp_path):
    with pytest.raises(UsageError, match="int8 is for generators"):
        export_onnx(tiny_tokenizer, tmp_path / "out", precision="int8")
    assert not any(tmp_path.iterdir())


def test_the_divergence_is_that_of_its_definition():
    found, wanted = (torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    p, q = wanted.double().softmax(-1), found.double().softmax(-1)
    expected = sum(
        p[i, j, k] * (p[i, j, k] / q[i, j, k]).log() for i in range(2) for j in range(3) for k in range(5)
    )
    assert _divergence(found.numpy(), wanted.numpy()) == pytest.approx(float(expected / 6), rel=1e-6)
    assert _divergence(found.numpy(), found.numpy() + 3) == pytest.approx(0, abs=1e-9)
