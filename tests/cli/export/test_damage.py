"""What `mergevq export verify` and `inspect` say of a folder that was damaged: one sentence, and no crash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import mergevq
from mergevq.cli import main
from mergevq.export.rewrites import shared_weights


@pytest.fixture(scope="module")
def sound(tiny, tmp_path_factory) -> Path:
    """An export with two encoders whose weights stand beside them; not to be changed."""
    out = tmp_path_factory.mktemp("sound") / "out"
    arguments = ["export", "onnx", "--checkpoint", str(tiny), "--out", str(out), "--keep", "32,16"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(shared_weights, "INLINE_BYTES", 50_000)
        assert main(arguments) == 0
    return out


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "out"))


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest as somebody would who knows of its hash."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    change(values)
    values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(values))


def accept(folder: Path, *names: str) -> None:
    """Makes the manifest say that these files should be as they are."""

    def change(values: dict[str, Any]) -> None:
        for name in names:
            content = (folder / name).read_bytes()
            values["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    rewrite_manifest(folder, change)


def cut(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap(folder: Path, first: str, second: str) -> None:
    (folder / first).rename(folder / "between")
    (folder / second).rename(folder / first)
    (folder / "between").rename(folder / second)


def turn_over(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[::-1])


def edit_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"schedule": "square"', '"schedule": "linear"'))


DAMAGES = {
    "a truncated graph": (lambda folder: cut(folder, "decoder.onnx"), "decoder.onnx has"),
    "swapped graphs": (lambda folder: swap(folder, "decoder.onnx", "recovery.onnx"), "decoder.onnx has"),
    "a missing graph": (lambda folder: (folder / "decoder.onnx").unlink(), "decoder.onnx is missing"),
    "truncated weights": (lambda folder: cut(folder, "decoder.data"), "decoder.data has"),
    "other weights": (
        lambda folder: turn_over(folder, "decoder.data"),
        "decoder.data is not the file that manifest.json describes",
    ),
    "swapped weights": (
        lambda folder: swap(folder, "encoder.data", "decoder.data"),
        ".data has",
    ),
    "missing weights": (lambda folder: (folder / "decoder.data").unlink(), "data is missing"),
    "an edited manifest": (edit_manifest, "manifest.json was changed after it was written"),
    "a truncated manifest": (lambda folder: cut(folder, "manifest.json"), "manifest.json cannot be read"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence(mergevq_main, tiny, folder, damage):
    do, message = DAMAGES[damage]
    do(folder)
    for command in (("inspect", folder), ("verify", folder, "--checkpoint", tiny)):
        result = mergevq_main("export", *command)
        assert result.code == 1
        assert message in result.error and str(folder) in result.error
        assert result.out == ""


def test_a_truncated_graph_that_the_manifest_accepts_fails(mergevq_main, tiny, folder):
    cut(folder, "decoder.onnx")
    accept(folder, "decoder.onnx")
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 1
    assert "decoder.onnx: checker" in result.error
    assert "FAILED decoder.onnx: checker" in result.out
    as_json = mergevq_main("export", "verify", folder, "--checkpoint", tiny, "--json")
    assert as_json.code == 1 and not json.loads(as_json.out)["passed"]


def test_swapped_graphs_that_the_manifest_accepts_fail(mergevq_main, tiny, folder):
    swap(folder, "decoder.onnx", "recovery.onnx")
    accept(folder, "decoder.onnx", "recovery.onnx")
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 1
    assert "decoder.onnx: inputs, are ['indices']" in result.error


def test_a_shape_that_is_not_of_the_configuration_is_refused(mergevq_main, tiny, folder):
    def change(values: dict[str, Any]) -> None:
        encoder = next(graph for graph in values["graphs"] if graph["keep"] == 16)
        encoder["inputs"][0]["shape"] = ["batch", 3, 64, 64]

    rewrite_manifest(folder, change)
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 1
    assert "the graph 'encoder_k16.onnx' does not fit the configuration; export again" in result.error


def test_a_frozen_batch_fails(mergevq_main, tiny, folder):
    model = onnx.load(str(folder / "encoder_k16.onnx"), load_external_data=False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    (folder / "encoder_k16.onnx").write_bytes(model.SerializeToString())
    accept(folder, "encoder_k16.onnx")
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 1
    assert "encoder_k16.onnx: inputs, image is [3, 3, 32, 32]" in result.error


def test_other_weights_that_the_manifest_accepts_fail_with_the_worst_sample(mergevq_main, tiny, folder):
    file = "recovery.onnx"
    model = onnx.load(str(folder / file))
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.dtype == np.float32 and weight.size > 500:
            tensor.CopyFrom(numpy_helper.from_array(weight * np.float32(1.2), tensor.name))
    onnx.save(model, str(folder / file))
    accept(folder, file)
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 1
    assert "recovery.onnx: greatest difference of a logit" in result.error
    assert "random tokens of seed" in result.error and "batch" in result.error
    assert not json.loads((folder / "verify.json").read_text())["passed"]
    assert "verification FAILED" in mergevq_main("export", "inspect", folder).out


def test_another_checkpoint_is_refused(mergevq_main, folder, tmp_path):
    torch.manual_seed(7)
    mergevq.save(mergevq.create("tiny-32"), tmp_path / "other")
    result = mergevq_main("export", "verify", folder, "--checkpoint", tmp_path / "other")
    assert result.code == 1
    assert "was exported from another model; give the checkpoint that it was made from" in result.error


def test_a_checkpoint_is_no_export(mergevq_main, tiny):
    for command in (("inspect", tiny), ("verify", tiny, "--checkpoint", tiny)):
        result = mergevq_main("export", *command)
        assert result.code == 1
        assert "is not an exported model: it has no manifest.json" in result.error


def test_a_missing_package_is_named(mergevq_main, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = mergevq_main("export", "onnx", "--checkpoint", tiny, "--out", tmp_path / "out")
    assert result.code == 2
    assert result.error == "export needs onnxscript: pip install mergevq[export]"
