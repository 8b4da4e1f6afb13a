from __future__ import annotations

import json

import pytest
import torch

import mergevq
from mergevq.bench.subjects import exports
from mergevq.bench.subjects.exports import export_of
from mergevq.errors import ExportError, UnusableExportError, UsageError
from mergevq.export import manifest as manifests
from mergevq.export.manifest import Manifest
from mergevq.models.store import fingerprint

SMALL = {
    f"{part}.{key}": value
    for part in ("encoder", "decoder")
    for key, value in {"channels": 8, "width": 32, "heads": 1, "depth": 1}.items()
}


def small(seed=0):
    torch.manual_seed(seed)
    return mergevq.create("tiny-32", **SMALL).eval()


def write(folder, model, passed=True, precision="fp32"):
    """A folder that says of itself that it is the model's, without a graph."""
    folder.mkdir(parents=True)
    manifest = Manifest(
        package="0",
        precision=precision,
        opset=20,
        tokenizer=model.config,
        fingerprint=fingerprint(model),
        axes={},
        graphs=(),
    )
    (folder / "manifest.json").write_text(json.dumps(manifests.to_json(manifest)))
    verdict = {"manifest": manifests.digest_of(folder), "passed": passed, "provider": "cpu", "checks": []}
    (folder / "verify.json").write_text(json.dumps(verdict))
    return folder


@pytest.fixture
def made(monkeypatch):
    """What was exported: one entry a time."""
    calls = []

    def export(model, out, keep, precision, winograd):
        calls.append((keep, precision))
        write(out, model, precision=precision)

    monkeypatch.setattr(exports, "export_onnx", export)
    return calls


def test_an_export_is_made_once_for_what_it_depends_on(made, tmp_path):
    first = export_of(small(), "fp32", (32,), tmp_path)
    assert export_of(small(), "fp32", (32,), tmp_path) == first and made == [((32,), "fp32")]
    others = [
        export_of(small(), "fp16", (32,), tmp_path),
        export_of(small(), "fp32", (32, 16), tmp_path),
        export_of(small(), "fp32", (32,), tmp_path, winograd=True),
        export_of(small(seed=1), "fp32", (32,), tmp_path),
    ]
    assert len({first, *others}) == 5 == len(made)


def test_the_source_of_exports_is_part_of_the_name(made, monkeypatch, tmp_path):
    first = export_of(small(), "fp32", (32,), tmp_path)
    monkeypatch.setattr(exports, "_sources", lambda: ["changed"])
    assert export_of(small(), "fp32", (32,), tmp_path) != first


def test_an_export_that_fails_is_not_there_the_next_time(monkeypatch, tmp_path):
    def fail(*given, **settings):
        raise ExportError("the graphs do not do what the model does")

    monkeypatch.setattr(exports, "export_onnx", fail)
    for _ in range(2):
        with pytest.raises(ExportError):
            export_of(small(), "fp32", (32,), tmp_path)


def test_what_did_not_pass_is_refused_wherever_it_is_from(made, monkeypatch, tmp_path):
    folder = export_of(small(), "fp32", (32,), tmp_path)
    verdict = {"manifest": manifests.digest_of(folder), "passed": False, "provider": "cpu", "checks": []}
    (folder / "verify.json").write_text(json.dumps(verdict))
    with pytest.raises(UnusableExportError, match="failed its verification"):
        export_of(small(), "fp32", (32,), tmp_path)
    (folder / "verify.json").unlink()
    monkeypatch.setattr(exports, "GIVEN", str(folder))
    with pytest.raises(UnusableExportError, match="was not verified"):
        export_of(small(), "fp32", (32,), tmp_path)


def test_a_folder_of_the_user_must_be_of_this_model_and_precision(made, monkeypatch, tmp_path):
    folder = write(tmp_path / "deployed", small())
    monkeypatch.setattr(exports, "GIVEN", str(folder))
    assert export_of(small(), "fp32", (32,), tmp_path / "cache") == folder and made == []
    with pytest.raises(UsageError, match="computes in fp32"):
        export_of(small(), "fp16", (32,), tmp_path)
    with pytest.raises(UsageError, match="another checkpoint"):
        export_of(small(seed=1), "fp32", (32,), tmp_path)
