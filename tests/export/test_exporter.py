"""A tokenizer goes out, and its graphs come back with the same tokens and pictures; a fault lets nothing through."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import mergevq
from mergevq.errors import CheckpointError, ExportError, OutputError, UsageError
from mergevq.export import export_onnx, exporter, read_manifest, verify, writing
from mergevq.export.checking import verification
from mergevq.export.checking.limits import LIMITS
from mergevq.export.checking.report import VerifyReport
from mergevq.export.checking.samples import random_tokens
from mergevq.export.checking.sessions import OnnxSessions
from mergevq.export.manifest import MANIFEST, VERIFICATION, check_files, entry, to_json
from mergevq.export.placing import folder_to_be
from mergevq.export.tokenizer import decoder_checks, encoder_checks
from mergevq.export.tokenizer.source_map import most_likely_source
from mergevq.tokens import Tokens


def test_an_export_is_complete_and_verified(exported):
    manifest = read_manifest(exported)
    check_files(exported, manifest)
    report = json.loads((exported / VERIFICATION).read_text())
    assert report["passed"] and report["manifest"] == to_json(manifest)["sha256"]
    assert {path.name for path in exported.iterdir()} == {*manifest.files, MANIFEST, VERIFICATION}
    assert manifest.keeps == [17, 32]
    assert sorted(graph.role for graph in manifest.graphs) == ["decoder", "encoder", "encoder", "recovery"]
    names = {check["name"] for check in report["checks"]}
    for keep in (17, 32):
        assert f"shared pairs of the partition at {keep} kept" in names
        assert {f"PSNR end to end, {kind} at {keep} kept" for kind in ("photo", "noise", "flat")} <= names


@pytest.mark.parametrize(("keep", "batch"), [(32, 1), (17, 2), (17, 5)])
def test_graphs_encode_and_decode_as_the_model(exported, tiny_tokenizer, keep, batch):
    manifest, sessions = read_manifest(exported), OnnxSessions(exported)
    images = torch.rand(batch, 3, 32, 32) * 2 - 1
    found = sessions.run(manifest.graph("encoder", keep=keep), {"image": images.numpy()})
    with torch.no_grad():
        wanted = tiny_tokenizer.encode(images, keep)
        painted = tiny_tokenizer.decode(wanted).numpy()
    for name in ("indices", "source", "sizes"):
        assert (found[name] == getattr(wanted, name).numpy()).all(), name
    del found["sizes"]
    assert np.abs(sessions.run(manifest.graph("decoder"), found)["image"] - painted).max() < 1e-5


@pytest.mark.parametrize("keep", [1, 2, 33, 64])
def test_one_decoder_and_one_recovery_take_any_count(exported, tiny_tokenizer, keep):
    manifest, sessions = read_manifest(exported), OnnxSessions(exported)
    indices, source = random_tokens(2, keep, 64, 8, seed=keep)
    tokens = Tokens(torch.from_numpy(indices), torch.from_numpy(source), torch.from_numpy(indices), (8, 8))
    painted = sessions.run(manifest.graph("decoder"), {"indices": indices, "source": source})["image"]
    logits = sessions.run(manifest.graph("recovery"), {"indices": indices})["logits"]
    with torch.no_grad():
        assert np.abs(painted - tiny_tokenizer.decode(tokens).numpy()).max() < 1e-5
        recovered = tiny_tokenizer.recover_source(tokens.indices).numpy()
    assert (most_likely_source(logits) == recovered).all()


def test_an_encoder_for_any_count(exported_any):
    checks = json.loads((exported_any / VERIFICATION).read_text())["checks"]
    counts = {check["name"].split(" at ")[1] for check in checks if " at " in check["name"]}
    assert counts == {f"{keep} kept" for keep in (16, 17, 31, 32, 63, 64)}
    manifest = read_manifest(exported_any)
    assert manifest.keeps == []
    assert [tensor.name for tensor in manifest.graph("encoder").inputs] == ["image", "left"]


def test_half_precision(exported_half):
    assert read_manifest(exported_half).precision == "fp16"
    model = onnx.load(str(exported_half / "decoder.onnx"))
    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + np.prod(tensor.dims, dtype=int)
    assert sizes[onnx.TensorProto.FLOAT16] > 10 * sizes[onnx.TensorProto.FLOAT]


def impossible(precision: str, pixel: float = -1.0, logit: float = -1.0) -> dict:
    """Limits that nothing keeps."""
    limits = replace(LIMITS[precision], partition=1.1, psnr=200.0, flat=200.0, pixel=pixel, logit=logit)
    return {**LIMITS, precision: limits}


def test_in_half_precision_a_graph_may_drift_as_far_as_the_model(
    exported_half, exported, tiny_tokenizer, monkeypatch
):
    found = {
        check["name"]: check["value"]
        for check in json.loads((exported_half / VERIFICATION).read_text())["checks"]
    }
    half = impossible(
        "fp16", 0.9 * found["greatest difference of a pixel"], 0.9 * found["greatest difference of a logit"]
    )
    for checks in (encoder_checks, decoder_checks):
        monkeypatch.setattr(checks, "LIMITS", {**half, "fp32": impossible("fp32")["fp32"]})
    assert verify(exported_half, tiny_tokenizer).passed
    failed = " ".join(check.name for check in verify(exported, tiny_tokenizer).failures)
    for measure in (
        "shared pairs",
        "PSNR end to end, photo",
        "PSNR end to end, flat",
        "pixel",
        "logit",
    ):  # there is no such excuse in float32
        assert measure in failed


def test_but_no_further(exported_half, tiny_tokenizer, monkeypatch):
    """An encoder that gives the tokens of two of three pictures to others."""
    monkeypatch.setattr(encoder_checks, "LIMITS", impossible("fp16"))
    run = OnnxSessions.run

    def shuffled(sessions, spec, inputs):
        found = run(sessions, spec, inputs)
        if spec.role != "encoder" or len(found["source"]) == 1:
            return found
        return {name: np.roll(value, 1, axis=0) for name, value in found.items()}

    monkeypatch.setattr(OnnxSessions, "run", shuffled)
    report = verify(exported_half, tiny_tokenizer)
    assert "shared pairs" in " ".join(check.name for check in report.failures)


@pytest.mark.parametrize(("role", "measure"), [("decoder", "a pixel"), ("recovery", "a logit")])
def test_nor_do_what_is_decoded_and_recovered(exported_half, tiny_tokenizer, monkeypatch, role, measure):
    monkeypatch.setattr(decoder_checks, "LIMITS", impossible("fp16"))
    run = OnnxSessions.run

    def shifted(sessions, spec, inputs):
        found = run(sessions, spec, inputs)
        return {name: value + 0.1 for name, value in found.items()} if spec.role == role else found

    monkeypatch.setattr(OnnxSessions, "run", shifted)
    assert measure in " ".join(check.name for check in verify(exported_half, tiny_tokenizer).failures)


def test_large_weights_stand_apart_and_may_be_moved(exported, tiny_tokenizer, copied):
    assert "decoder.data" in read_manifest(exported).files
    assert "recovery.data" not in read_manifest(exported).files
    assert verify(copied(), tiny_tokenizer).passed


def test_swapped_weights_are_refused(copied, tiny_tokenizer):
    folder = copied()
    (folder / "encoder.data").write_bytes((folder / "encoder.data").read_bytes()[::-1])
    with pytest.raises(CheckpointError, match=r"encoder\.data"):
        verify(folder, tiny_tokenizer)


def test_a_failed_verification_leaves_nothing(tiny_tokenizer, tmp_path, monkeypatch):
    def write(model, spec, weights, notes, **settings):
        """Writes a decoder one of whose weights is another."""
        if spec.role == "decoder":
            weight = model.graph.initializers["module.tokenizer.decoder.out.weight"]
            weight.const_value = onnx_tensor(weight.const_value.numpy() + 0.1)
        writing.write_graph(model, spec, weights, notes, **settings)

    monkeypatch.setattr(exporter, "write_graph", write)
    monkeypatch.setattr(exporter, "encoder_plans", lambda *_: [])
    with pytest.raises(
        ExportError, match=r"decoder\.onnx: greatest difference of a pixel .* random tokens of"
    ):
        export_onnx(tiny_tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def onnx_tensor(array: np.ndarray):
    from onnxscript import ir

    return ir.tensor(array)


def rewrite(folder: Path, file: str, model: onnx.ModelProto) -> None:
    """Writes another graph, and makes the manifest say that it should be so."""
    onnx.save(model, str(folder / file))
    manifest = read_manifest(folder)
    files = {**manifest.files, file: entry(folder / file)}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))


def test_another_encoder_fails_and_the_worst_sample_is_named(copied, tiny_tokenizer):
    folder = copied()
    model = onnx.load(str(folder / "encoder_k32.onnx"))
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.size > 500 and weight.dtype == np.float32:
            noisy = weight + rng.normal(size=weight.shape) * weight.std() / 2
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
    rewrite(folder, "encoder_k32.onnx", model)
    report = verify(folder, tiny_tokenizer)
    assert not report.passed
    failed = {check.name for check in report.failures}
    assert "shared pairs of the partition at 32 kept" in failed
    assert "PSNR end to end, photo at 32 kept" in failed
    assert {check.graph for check in report.failures} == {"encoder_k32.onnx"}
    assert any("batch" in check.worst and "row" in check.worst for check in report.failures)
    assert not json.loads((folder / VERIFICATION).read_text())["passed"]
    with pytest.raises(ExportError, match=r"encoder_k32\.onnx: .* \(limit .*, and \d+ more checks"):
        report.raise_if_failed()


def test_graphs_that_do_not_run_are_an_error_of_one_sentence(copied, tiny_tokenizer):
    folder = copied()
    model = onnx.load(str(folder / "decoder.onnx"))
    reshape = next(
        node for node in model.graph.node if node.op_type in ("Reshape", "Gather", "GatherElements")
    )
    reshape.input[0], reshape.input[1] = reshape.input[1], reshape.input[0]
    rewrite(folder, "decoder.onnx", model)
    with pytest.raises(ExportError, match=r"decoder\.onnx does not run on"):
        verify(folder, tiny_tokenizer)


def test_a_swapped_graph_is_refused(copied, tiny_tokenizer):
    folder = copied()
    (folder / "encoder_k32.onnx").write_bytes((folder / "encoder_k17.onnx").read_bytes())
    with pytest.raises(CheckpointError, match=r"encoder_k32\.onnx"):
        verify(folder, tiny_tokenizer)


def test_another_model_is_refused(exported):
    torch.manual_seed(5)
    other = mergevq.create("tiny-32").eval()
    with pytest.raises(CheckpointError, match="was exported from another model"):
        verify(exported, other)


def test_impossible_requests_are_refused_before_any_work(tiny_tokenizer, tmp_path):
    with pytest.raises(UsageError, match="nearest count that can be reached is 16"):
        export_onnx(tiny_tokenizer, tmp_path / "out", keep=[3])
    with pytest.raises(UsageError, match="choose one of the two"):
        export_onnx(tiny_tokenizer, tmp_path / "out", keep=[32], dynamic_keep=True)
    for keep in ([], 32, "32"):
        with pytest.raises(UsageError, match="a list of at least one kept count is wanted"):
            export_onnx(tiny_tokenizer, tmp_path / "out", keep=keep)
    with pytest.raises(UsageError, match="unknown precision 'fp61'; did you mean 'fp16'"):
        export_onnx(tiny_tokenizer, tmp_path / "out", precision="fp61")
    assert not list(tmp_path.iterdir())


def nothing(folder):
    """A folder of somebody else's."""


def another_manifest(folder):
    (folder / MANIFEST).write_text('{"name": "a web page", "files": {}}')


def an_export(folder):
    for path in EXPORTED[0].iterdir():
        (folder / path.name).symlink_to(path)


EXPORTED: list[Path] = []


@pytest.mark.parametrize("what", [nothing, another_manifest, an_export])
def test_a_folder_in_which_something_would_be_lost_stays(
    exported, tiny_tokenizer, tmp_path, monkeypatch, what
):
    monkeypatch.setattr(exporter, "check_packages", lambda: pytest.fail("it went on"))
    EXPORTED[:] = [exported]
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    what(folder)
    with pytest.raises(
        OutputError, match=r"full exists and is not an exported model alone: .* would be lost"
    ):
        export_onnx(tiny_tokenizer, folder)
    assert (folder / "thesis.tex").read_text() == "precious"


def test_the_current_folder_and_a_file_are_not_replaced(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "check_packages", lambda: pytest.fail("it went on"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is the folder that this runs in"):
        export_onnx(tiny_tokenizer, ".")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="file would be lost"):
        export_onnx(tiny_tokenizer, "file")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_replaced(copied, tmp_path, there):
    target = copied() if there else tmp_path / "later"
    (tmp_path / "link").symlink_to(target)
    out = (tmp_path / "link").resolve()
    exporter._check_replaceable(out)
    with folder_to_be(out) as folder:
        (folder / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "link").iterdir()] == ["new"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_weights_behind_links_are_verified_and_the_other_folder_is_left_alone(
    exported, tiny_tokenizer, tmp_path, monkeypatch, link
):
    before = (exported / VERIFICATION).read_bytes()
    for path in exported.iterdir():
        link(path, tmp_path / path.name)
    assert verify(tmp_path, tiny_tokenizer).passed
    assert (exported / VERIFICATION).read_bytes() == before
    assert (tmp_path / VERIFICATION).read_bytes() != before  # which says how long it took


def test_a_report_is_whole_or_the_earlier_one(copied, monkeypatch):
    folder = copied()
    before = (folder / VERIFICATION).read_bytes()
    report = VerifyReport(manifest="", provider="", versions={}, checks=(), seconds=0)

    def full(path, text, encoding):
        path.write_bytes(text.encode()[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=r"cannot write .*verify\.json: No space left"):
        report.write(folder)
    assert (folder / VERIFICATION).read_bytes() == before


def test_pictures_that_are_no_numbers_fail(exported, tiny_tokenizer, monkeypatch):
    run = OnnxSessions.run

    def broken(sessions, spec, inputs):
        found = run(sessions, spec, inputs)
        ours = (
            spec.role == "decoder" and inputs["indices"].shape[1] in (17, 32) and len(inputs["indices"]) == 8
        )
        return {name: value * np.float32(np.nan) for name, value in found.items()} if ours else found

    monkeypatch.setattr(OnnxSessions, "run", broken)
    monkeypatch.setattr(verification, "decoder_checks", lambda *_: iter(()))
    failed = " ".join(check.name for check in verify(exported, tiny_tokenizer).failures)
    assert "PSNR end to end, photo" in failed and "PSNR end to end, noise" in failed


def test_verification_of_an_unknown_run_time(exported, tiny_tokenizer):
    with pytest.raises(UsageError, match="unknown run time 'onxx'; did you mean 'onnx'"):
        verify(exported, tiny_tokenizer, runtime="onxx")


def test_a_model_of_another_precision_is_refused(tmp_path):
    model = mergevq.create("tiny-32").bfloat16()
    with pytest.raises(
        UsageError, match=r"the model is torch\.bfloat16 on cpu; export takes a float32 model"
    ):
        export_onnx(model, tmp_path / "out")


def test_a_model_is_in_evaluation_mode_meanwhile_and_then_as_it_was(tiny_tokenizer):
    tiny_tokenizer.train()
    with verification.evaluating(tiny_tokenizer):
        assert not any(module.training for module in tiny_tokenizer.modules())
    assert tiny_tokenizer.training
    tiny_tokenizer.eval()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    report = VerifyReport(manifest="", provider="", versions={}, checks=(), seconds=0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*verify\.json: (Not a directory|File exists)"):
        report.write(tmp_path / "file")
