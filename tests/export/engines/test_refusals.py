"""Engines that cannot be used, cards that are not there, inputs that do not fit: one sentence each, on the stand-in."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

import mergevq
from mergevq.errors import DeviceUnavailableError, ExportError, UnusableExportError, UsageError
from mergevq.export import build_engines, read_manifest
from mergevq.export.engines.sidecar import read_sidecar
from mergevq.export.manifest import MANIFEST, entry, to_json


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)


def other_version(folder, install_tensorrt, card):
    install_tensorrt(card, version="11.5.0.1")


def other_card(folder, install_tensorrt, card):
    card.capability = (8, 9)


def other_flavor(folder, install_tensorrt, card):
    install_tensorrt(card, flavor="tensorrt-rtx", version="1.7.1.116")


def other_graph(folder, install_tensorrt, card):
    (folder / "decoder.onnx").write_bytes((folder / "recovery.onnx").read_bytes())
    manifest = read_manifest(folder)
    files = {**manifest.files, "decoder.onnx": entry(folder / "decoder.onnx")}
    (folder / MANIFEST).write_text(json.dumps(to_json(replace(manifest, files=files))))


DECODER = "engines/decoder.tensorrt-sm86.engine"


def truncated(folder, install_tensorrt, card):
    (folder / DECODER).write_bytes((folder / DECODER).read_bytes()[:-9])


def swapped(folder, install_tensorrt, card):
    content = bytearray((folder / DECODER).read_bytes())
    content[5] ^= 1
    (folder / DECODER).write_bytes(content)


def missing(folder, install_tensorrt, card):
    (folder / DECODER).unlink()


def cut_off(folder, install_tensorrt, card):
    path = folder / f"{DECODER}.json"
    path.write_text(path.read_text()[:-50])


def edited(folder, install_tensorrt, card):
    path = folder / f"{DECODER}.json"
    path.write_text(path.read_text().replace('"8.6"', '"8.9"'))


def edited_and_hashed_again(folder, install_tensorrt, card):
    path = folder / f"{DECODER}.json"
    replace(read_sidecar(path), targets=("sm86",)).write(path)


def of_another_kind(folder, install_tensorrt, card):
    (folder / "engines" / "notes.engine.json").write_text("[1]")


def nothing_built(folder, install_tensorrt, card):
    shutil.rmtree(folder / "engines")


def tampered(folder, install_tensorrt, card):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"keep": 17', '"keep": 18', 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            other_version,
            r"built by tensorrt 11\.4\.0\.106, and 11\.5\.0\.1 is installed.*build it again with",
        ),
        (other_card, r"for cards of compute capability 8\.6, and this one has 8\.9; build it again"),
        (other_flavor, r"has engines of tensorrt alone, and tensorrt-rtx is installed"),
        (other_graph, r"decoder\.tensorrt-sm86\.engine was built from another decoder\.onnx"),
        (truncated, r"decoder\.tensorrt-sm86\.engine has \d+ bytes and should have \d+"),
        (swapped, r"decoder\.tensorrt-sm86\.engine is not the engine that was built"),
        (missing, r"decoder\.tensorrt-sm86\.engine is missing"),
        (cut_off, r"decoder\.tensorrt-sm86\.engine\.json does not describe an engine"),
        (edited, r"\.json does not describe an engine \(it was changed\)"),
        (edited_and_hashed_again, r"targets\[0\] is 'sm86'"),
        (of_another_kind, r"notes\.engine\.json does not describe an engine"),
        (nothing_built, r"has no engines; build them with `mergevq export engine"),
        (tampered, r"manifest\.json was changed"),
    ],
)
def test_what_cannot_be_used_is_said_when_it_is_loaded(with_engines, install_tensorrt, card, damage, said):
    mergevq.load(with_engines, runtime="tensorrt")
    damage(with_engines, install_tensorrt, card)
    with pytest.raises(UnusableExportError, match=said) as caught:
        mergevq.load(with_engines, runtime="tensorrt")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_card_that_rtx_does_not_know(install_tensorrt, beside, copied):
    card, folder = install_tensorrt(flavor="tensorrt-rtx"), copied()
    build_engines(folder, graphs=["decoder"])
    card.capability = (9, 0)
    with pytest.raises(UnusableExportError, match=r"this one has 9\.0; .* builds for 7\.5, .* alone: use"):
        mergevq.load(folder, runtime="tensorrt")


def test_what_the_library_cannot_open_is_said(with_engines, images):
    """An engine that is the one that was built, and yet no good."""
    path = with_engines / "engines" / "encoder_k32.tensorrt-sm86.engine"
    path.write_bytes(b"junk")
    sidecar = read_sidecar(path.with_name(f"{path.name}.json"))
    replace(sidecar, engine=entry(path)).write(path.with_name(f"{path.name}.json"))
    runtime = mergevq.load(with_engines, runtime="tensorrt")
    with pytest.raises(
        UnusableExportError, match=r"cannot be opened by TensorRT 11\.4\.0\.106: the magic tag"
    ):
        runtime.encode(images)


def test_rtx_says_why_an_engine_is_not_valid(install_tensorrt, beside, copied, images, monkeypatch):
    install_tensorrt(flavor="tensorrt-rtx")
    folder = copied()
    build_engines(folder, graphs=["encoder"])
    monkeypatch.setattr(beside("tensorrt_standin").RtxRuntime, "diagnostics", 3)
    with pytest.raises(UnusableExportError, match=r"is not valid here .*: version mismatch, unsupported cc"):
        mergevq.load(folder, runtime="tensorrt").encode(images)


def test_tensors_of_another_graph(with_engines, images, monkeypatch, beside):
    engine = beside("tensorrt_standin").ICudaEngine
    monkeypatch.setattr(engine, "get_tensor_name", lambda self, number: f"tensor{number}")
    with pytest.raises(UnusableExportError, match="which are not those of encoder_k32"):
        mergevq.load(with_engines, runtime="tensorrt").encode(images)
    monkeypatch.undo()


def test_failures_while_running(with_engines, card, images, monkeypatch, beside):
    runtime = mergevq.load(with_engines, runtime="tensorrt")
    card.fails = "cudaMalloc"
    with pytest.raises(ExportError, match="cudaMalloc fails: out of memory"):
        runtime.encode(images)
    card.fails = ""
    assert len(runtime.encode(images)) == 3  # it goes on
    context = beside("tensorrt_standin").IExecutionContext
    for name, answer, said in [
        ("execute_async_v3", False, r"encoder_k32\.tensorrt-sm86\.engine fails: it gives no reason"),
        ("infer_shapes", ["image"], "does not know the shapes of image"),
        ("set_input_shape", False, "does not take image of"),
        ("get_tensor_shape", (-1, 32), "does not say the shape of indices"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(context, name, lambda *_, found=answer: found)
            with pytest.raises(ExportError, match=said):
                runtime.encode(images)
    assert len(runtime.encode(images)) == 3


def test_batches_beyond_the_profile(with_engines, images):
    runtime = mergevq.load(with_engines, runtime="tensorrt")
    with pytest.raises(
        UsageError, match=r"image has the shape \[6, 3, 32, 32\], .* to \[4, 3, 32, 32\]; take less"
    ):
        runtime.encode(np.concatenate([images, images]))


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ({"cuda.bindings": None}, "engines need cuda-bindings"),
        ({"tensorrt": None}, r"engines need tensorrt or tensorrt-rtx.*pip install mergevq\[tensorrt\]"),
        ("no card", "CUDA sees none"),
        ("no driver", "engines need an NVIDIA card and its driver: cudaGetDeviceCount fails"),
    ],
)
def test_what_is_not_there_is_said(with_engines, card, monkeypatch, absent, said):
    if absent == "no card":
        card.count = 0
    elif absent == "no driver":
        card.fails = "cudaGetDeviceCount"
    else:
        for name, value in absent.items():
            monkeypatch.setitem(sys.modules, name, value)
    for attempt in (
        lambda: mergevq.load(with_engines, runtime="tensorrt"),
        lambda: build_engines(with_engines),
    ):
        with pytest.raises(DeviceUnavailableError, match=said) as caught:
            attempt()
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_settings_of_other_run_times(with_engines):
    with pytest.raises(UsageError, match="settings of ONNX Runtime"):
        mergevq.load(with_engines, runtime="tensorrt", provider="cuda")
    with pytest.raises(UsageError, match="engines are for TensorRT"):
        mergevq.load(with_engines, runtime="onnx", engines=with_engines)
