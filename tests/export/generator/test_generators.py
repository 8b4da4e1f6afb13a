"""Generators of every kind go out; their graphs step as the model does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mergevq.errors import CheckpointError, UsageError
from mergevq.export import export_onnx, read_manifest, verify
from mergevq.export.checking.sessions import OnnxSessions
from mergevq.export.generator.checks import split
from mergevq.export.generator.layout_file import LAYOUTS, read_layouts, write_layouts
from mergevq.export.manifest import MANIFEST, Precision, check_files, entry, to_json
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generator_config import GeneratorKind
from mergevq.models.generators.subcodes import split_code

from ..conftest import once, small_generator


@pytest.fixture(scope="module", params=get_args(GeneratorKind))
def generator(request, tiny_tokenizer) -> ImageGenerator:
    return small_generator(request.param, tiny_tokenizer)


@pytest.fixture(scope="module")
def precision(generator) -> Precision:
    """One of the kinds goes out in float16."""
    return "fp16" if generator.kind == "raster" else "fp32"


@pytest.fixture(scope="module")
def close(precision) -> float:
    """How near two ways to one result come."""
    return 1e-2 if precision == "fp16" else 1e-5


@pytest.fixture(scope="module")
def folder(generator, precision, tmp_path_factory) -> Path:
    name = generator.kind if precision == "fp32" else f"{generator.kind}-{precision}"
    return once(tmp_path_factory, name, lambda out: export_onnx(generator, out, precision=precision))


def test_an_export_is_complete_and_verified(folder, generator, precision):
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    assert json.loads((folder / "verify.json").read_text())["passed"]
    assert manifest.kind == "generator" and manifest.generator == generator.model.config
    assert {graph.file for graph in manifest.graphs} == {
        *("decoder.onnx", "recovery.onnx", "prefill.onnx", "step.onnx", "head_0.onnx", "head_1.onnx")
    }
    assert (LAYOUTS in manifest.files) == (generator.kind == "rand_ar")
    kinds = {tensor.data_type for tensor in onnx.load(str(folder / "step.onnx")).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in kinds) == (precision == "fp16")


def test_a_head_scores_as_the_model(folder, generator, close):
    manifest, sessions, model = read_manifest(folder), OnnxSessions(folder), generator.model
    contexts, codes = torch.randn(7, model.config.width), torch.randint(0, 2**8, (7,))
    with torch.no_grad():
        wanted = model.head(contexts[:, None], codes[:, None], model.codes)
    known = split_code(codes, model.config.split)[0][:, None]
    for part, inputs in enumerate([{}, {"known": known.numpy()}]):
        found = sessions.run(manifest.graph("head", part=part), {"context": contexts.numpy(), **inputs})
        assert np.abs(found["logits"] - wanted[part][:, 0].numpy()).max() < close


def test_a_hidden_slot_counts_for_nothing(folder, generator, close):
    """However large what is in it, and wherever it stands: MergeAR's compressed cache rests on this."""
    manifest, sessions, config = read_manifest(folder), OnnxSessions(folder), generator.model.config
    rng = np.random.default_rng(0)
    shape = (2, config.heads, 6, 64)
    past = {f"past.{layer}.{what}": rng.normal(size=shape).astype(np.float32)
            for layer in range(config.depth) for what in ("key", "value")}  # fmt: skip
    inputs = {
        "code": np.full((2, 1), 3),
        "position": np.full((2, 1), 9),
        "mask": np.ones((2, 1, 7), dtype=bool),
    }
    if config.kind == "rand_ar":
        inputs["question"] = np.zeros((2, 1), dtype=bool)
    inputs["mask"][0, 0, [1, 4]] = inputs["mask"][1, 0, [0, 5]] = False
    step = manifest.graph("step")
    masked = sessions.run(step, inputs | past)
    rows = np.array([[5, 0, 3, 2], [2, 1, 4, 3]])  # what is left, in another order
    short = {name: np.take_along_axis(each, rows[:, None, :, None], axis=2) for name, each in past.items()}
    compact = sessions.run(step, {**inputs, "mask": np.ones((2, 1, 5), dtype=bool), **short})
    for name in masked:
        assert np.abs(masked[name] - compact[name]).max() < close, name
    loud = {name: each.copy() for name, each in past.items()}
    for each in loud.values():
        each[0, :, [1, 4]] = each[1, :, [0, 5]] = 1e4
    assert np.abs(sessions.run(step, inputs | loud)["context"] - masked["context"]).max() < close


def test_a_damaged_step_is_found_out(folder, generator, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = onnx.load(str(tmp_path / "step.onnx"))
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array((values * 1.5).astype(values.dtype), weight.name))
    onnx.save(model, str(tmp_path / "step.onnx"))
    manifest = read_manifest(tmp_path)
    files = {**manifest.files, "step.onnx": entry(tmp_path / "step.onnx")}
    (tmp_path / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))
    failures = verify(tmp_path, generator).failures
    assert "step.onnx" in {check.graph for check in failures}
    assert all("batch" in check.worst for check in failures)


def test_kept_counts_belong_to_tokenizers(generator, tmp_path):
    with pytest.raises(UsageError, match="a generator has no encoder"):
        export_onnx(generator, tmp_path / "out", keep=[32])


def test_codes_are_split_as_the_model_splits_them():
    codes = torch.randint(0, 2**18, (50,))
    for bits in ((9, 9), (14, 4), (5, 6, 7), (18,)):
        ours, theirs = split(codes.numpy(), bits), split_code(codes, bits)
        assert all((mine == part.numpy()).all() for mine, part in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("length", [16, 49, 64])
def test_layouts_come_back(tmp_path, length):
    positions = np.random.default_rng(0).random((5, length)) < 0.5
    write_layouts(tmp_path, positions, np.arange(5))
    found, labels = read_layouts(tmp_path, length)
    assert (found == positions).all() and (labels == np.arange(5)).all()
    with pytest.raises(CheckpointError, match="is not of a grid of"):
        read_layouts(tmp_path, length + 8)
    (tmp_path / LAYOUTS).write_bytes(b"not a zip")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_layouts(tmp_path, length)
