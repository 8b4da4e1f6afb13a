"""The manifest comes back as it was written, and finds out what was changed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mergevq.errors import CheckpointError
from mergevq.export.manifest import (
    MANIFEST,
    FileEntry,
    GraphSpec,
    Manifest,
    TensorSpec,
    check_files,
    read_manifest,
    read_verification,
    sha256,
    to_json,
)
from mergevq.generator_config import generator_config
from mergevq.presets import preset

DECODER = GraphSpec(
    file="decoder.onnx",
    role="decoder",
    inputs=(TensorSpec(name="indices", dtype="int64", shape=("batch", "keep")),),
    outputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 3, 32, 32)),),
)


@pytest.fixture
def manifest() -> Manifest:
    tokenizer = preset("tiny-32")
    return Manifest(
        package="0.1.0",
        precision="fp16",
        opset=20,
        tokenizer=tokenizer,
        generator=generator_config("nano", "merge_ar", tokenizer),
        fingerprint="f" * 64,
        axes={"batch": (1, None), "keep": (1, 64)},
        graphs=(DECODER, replace(DECODER, file="encoder_k32.onnx", role="encoder", keep=32)),
        files={name: FileEntry(sha256="0", bytes=5) for name in ("decoder.onnx", "encoder_k32.onnx")},
        versions={"torch": "2.14.1"},
    )


def write(manifest: Manifest, folder) -> None:
    (folder / MANIFEST).write_text(json.dumps(to_json(manifest)))


def test_a_manifest_comes_back(manifest, tmp_path):
    write(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_a_manifest_tells_others_about_pictures_and_codes(manifest):
    values = to_json(manifest)
    assert values["image"]["range"] == [-1.0, 1.0]
    assert values["image"]["size"] == 32
    assert values["codes"]["bits"] == manifest.tokenizer.quantizer.bits
    assert values["codes"]["split"] == list(manifest.generator.split)
    assert values["merging"]["exported"] == [32]
    assert values["kind"] == "generator"


def test_graphs_are_found_by_what_they_are(manifest):
    assert manifest.graph("encoder", keep=32).file == "encoder_k32.onnx"
    assert manifest.graph("decoder") is manifest.graphs[0]
    with pytest.raises(CheckpointError, match="no graph of the encoder of 16 tokens"):
        manifest.graph("encoder", keep=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values["merging"].update(keep=3), "was changed after it was written"),
        (lambda values: values.pop("sha256"), "was changed after it was written"),
        (lambda values: values.update(schema=99), "schema 99"),
        (lambda values: values.update(format="zip"), "does not describe graphs"),
    ],
)
def test_an_edited_manifest_is_refused(manifest, tmp_path, change, message):
    values = to_json(manifest)
    change(values)
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graphs": (replace(DECODER, file="other.onnx"),)}, "'other.onnx' is not one of its files"),
        ({"graphs": (replace(DECODER, role="painter"),)}, "'painter' is not the role of a graph"),
        ({"precision": "int4"}, "'int4' is not a precision"),
    ],
)
def test_a_manifest_that_names_what_does_not_exist_is_refused(manifest, tmp_path, changes, message):
    write(replace(manifest, **changes), tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"format": "mergevq-onnx"}'])
def test_a_truncated_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_is_no_export(tmp_path):
    with pytest.raises(CheckpointError, match=r"it has no manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ".hidden", "a/b"])
def test_files_outside_the_folder_are_refused(manifest, tmp_path, name):
    write(replace(manifest, files={name: FileEntry(sha256="0", bytes=0)}), tmp_path)
    with pytest.raises(CheckpointError, match="is not the name of a file in the folder"):
        read_manifest(tmp_path)


def test_files_are_checked_by_size_and_content(manifest, tmp_path):
    path = tmp_path / "decoder.onnx"
    path.write_bytes(b"graph")
    manifest = replace(manifest, files={path.name: FileEntry(sha256=sha256(path), bytes=5)})
    check_files(tmp_path, manifest)
    path.write_bytes(b"grape")
    with pytest.raises(CheckpointError, match="is not the file that"):
        check_files(tmp_path, manifest)
    path.write_bytes(b"gra")
    with pytest.raises(CheckpointError, match="has 3 bytes and should have 5"):
        check_files(tmp_path, manifest)
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        check_files(tmp_path, manifest)


def test_a_verification_of_another_manifest_does_not_count(manifest, tmp_path):
    write(manifest, tmp_path)
    assert read_verification(tmp_path) is None
    (tmp_path / "verify.json").write_text(json.dumps({"manifest": "another", "passed": True}))
    assert read_verification(tmp_path) is None
    (tmp_path / "verify.json").write_text(
        json.dumps({"manifest": to_json(manifest)["sha256"], "passed": True, "provider": "cpu", "checks": []})
    )
    assert read_verification(tmp_path)["passed"]


def test_reading_needs_neither_torch_nor_onnx(manifest, tmp_path, run_python):
    write(manifest, tmp_path)
    code = (
        "import sys; from mergevq.export.manifest import read_manifest; "
        "import mergevq.export.tokenizer.source_map, mergevq.export.generator.layout_file; "
        "print(read_manifest(sys.argv[1]).kind, [name for name in ('torch', 'onnx') if name in sys.modules])"
    )
    result = run_python("-c", code, str(tmp_path))
    assert (result.returncode, result.stdout.strip()) == (0, "generator []"), result.stderr
