"""The manifest comes back as it was written, and finds out what was changed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mergevq.errors import CheckpointError
from mergevq.export import manifest as manifests
from mergevq.export.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    check_files,
    read_manifest,
    read_verification,
    sha256,
    to_json,
)
from mergevq.export.specs import decoder_spec, encoder_spec
from mergevq.generator_config import generator_config
from mergevq.presets import preset

TOKENIZER = preset("tiny-32")
DECODER = decoder_spec(TOKENIZER)


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        package="0.1.0",
        precision="fp16",
        opset=20,
        tokenizer=TOKENIZER,
        generator=generator_config("nano", "merge_ar", TOKENIZER),
        fingerprint="f" * 64,
        axes={"batch": (1, None), "keep": (1, 64)},
        graphs=(DECODER, encoder_spec(TOKENIZER, 32)),
        files={name: FileEntry(sha256="0" * 64, bytes=5) for name in ("decoder.onnx", "encoder_k32.onnx")},
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
        (
            {"graphs": (replace(DECODER, role="painter"),)},
            r"graphs\[0\].role is 'painter'; one of encoder, decoder",
        ),
        ({"precision": "int4"}, "precision is 'int4'; one of fp32"),
    ],
)
def test_a_manifest_that_names_what_does_not_exist_is_refused(manifest, tmp_path, changes, message):
    write(replace(manifest, **changes), tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(opset=True), "opset is True; a whole number from 1"),
        (lambda v: v.update(opset=10**20), "opset is a number of some 21 digits"),
        (lambda v: v.update(winograd="no"), "winograd is 'no'; true or false"),
        (lambda v: v.update(package=["0.1.0"]), "package is "),
        (lambda v: v.update(fingerprint="f" * 63), "fingerprint is "),
        (lambda v: v.update(comment="hello"), "'comment' is not known"),
        (lambda v: v.pop("axes"), "axes is missing"),
        (lambda v: v["axes"].update(batch=[4, 1]), r"axes\.batch is \[4, 1\]; the least length and the greatest"),
        (lambda v: v["axes"].update(batch=[None, 1]), r"axes\.batch is \[None, 1\]"),
        (lambda v: v["axes"].update(batch=7), r"axes\.batch is 7; a list"),
        (lambda v: v["versions"].update(torch=2), r"versions\.torch is 2"),
        (lambda v: v.update(files=[]), r"files is \[\]; a table"),
        (lambda v: v["files"]["decoder.onnx"].update(bytes=-1), r"files\.decoder\.onnx\.bytes is -1"),
        (lambda v: v["files"]["decoder.onnx"].update(mode=7), r"'files\.decoder\.onnx\.mode' is not known"),
        (lambda v: v["graphs"].append(3), r"graphs\[2\] is 3; a table"),
        (lambda v: v["graphs"][0].update(inputs={}), r"graphs\[0\]\.inputs is {}; a list"),
        (lambda v: v["graphs"][0].update(part=-1), r"graphs\[0\]\.part is -1"),
        (lambda v: v["graphs"][0]["inputs"][0].update(name="codes"), "'decoder.onnx' does not fit the config"),
        (lambda v: v["graphs"][0]["outputs"][0].update(shape=["batch", 3, 64, 64]), "'decoder.onnx' does not fit"),
        (lambda v: v["graphs"][0]["inputs"][0].update(dtype="int32"), r"inputs\[0\]\.dtype is 'int32'; one of"),
        (lambda v: v["graphs"][1].update(keep=65), "'encoder_k32.onnx' does not fit"),
        (lambda v: v["tokenizer"].update(image_size=64), "does not fit the configuration"),
        (lambda v: v["tokenizer"].update(image_size="32"), "image_size"),
        (lambda v: v.update(tokenizer=None), "tokenizer is None; a table"),
        (lambda v: v["image"].update(size=64), r"image\.size is not that of the configuration, 32"),
        (lambda v: v["codes"].update(split=[1]), r"codes\.split is not that of the configuration"),
        (lambda v: v.update(merging=3), r"merging\.positions is not that of the configuration"),
    ],
)  # fmt: skip
def test_a_manifest_that_was_edited_and_hashed_again_is_one_sentence(manifest, tmp_path, change, message):
    """It is no signature: types, ranges and how things fit together are looked at too."""
    values = to_json(manifest)
    del values["sha256"]
    change(values)
    text = json.dumps({**values, "sha256": manifests._digest(values)})
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).endswith("; export again")


@pytest.mark.parametrize(
    "change",
    [{"checks": [3]}, {"checks": None}, {"passed": "yes"}, {"seconds": -1}, {"versions": {"torch": 2}}, {"more": 1}],
)  # fmt: skip
def test_a_report_that_was_edited_is_one_sentence(manifest, tmp_path, change):
    write(manifest, tmp_path)
    check = {"graph": "all", "name": "n", "passed": True, "value": 0.5, "limit": None, "worst": ""}
    report = {"manifest": to_json(manifest)["sha256"], "passed": True, "provider": "cpu", "checks": [check]}
    (tmp_path / "verify.json").write_text(json.dumps(report))
    assert read_verification(tmp_path) == report
    (tmp_path / "verify.json").write_text(json.dumps(report | change))
    with pytest.raises(CheckpointError, match=r"is no report of a verification: .*writes it anew"):
        read_verification(tmp_path)


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
    write(replace(manifest, files={name: FileEntry(sha256="0" * 64, bytes=0)}), tmp_path)
    with pytest.raises(CheckpointError, match="in files is not the name of one of those"):
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
