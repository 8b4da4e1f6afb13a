"""`mergevq encode|decode|generate --runtime onnx`: what PyTorch gives, and exit code 2 with one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import mergevq
from mergevq.cli import main
from mergevq.export.manifest import MANIFEST


@pytest.fixture
def run(capsys):
    """Calls the command line; its exit code, and the last line that it wrote about itself."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    return call


@pytest.fixture
def checkpoint(tiny_tokenizer, tmp_path):
    mergevq.save(tiny_tokenizer, tmp_path / "tok")
    return tmp_path / "tok"


def levels(folder):
    """Every picture of a folder by its name."""
    return {path.relative_to(folder): np.asarray(Image.open(path), int) for path in folder.rglob("*.png")}


def alike(first, second):
    """The same pictures, give or take a level."""
    return first.keys() == second.keys() and all(abs(first[name] - second[name]).max() <= 1 for name in first)


def test_tokens_and_pictures_are_those_of_pytorch(run, exported, checkpoint, image_folder, tmp_path):
    for name, chosen in (("torch", [checkpoint]), ("onnx", [exported, "--runtime", "onnx"])):
        where = ["--checkpoint", *chosen]
        file = tmp_path / f"{name}.npz"
        assert run("encode", *where, image_folder, "--keep", 17, "--out", file)[0] == 0
        assert run("decode", *where, file, "--out", tmp_path / name)[0] == 0
    with np.load(tmp_path / "torch.npz") as wanted, np.load(tmp_path / "onnx.npz") as found:
        assert all(np.array_equal(wanted[name], found[name]) for name in wanted.files)
    assert len(levels(tmp_path / "onnx")) == 12
    assert alike(levels(tmp_path / "onnx"), levels(tmp_path / "torch"))
    # Each reads what the other wrote.
    other = ["--checkpoint", exported, "--runtime", "onnx", tmp_path / "torch.npz"]
    assert run("decode", *other, "--out", tmp_path / "crossed")[0] == 0
    assert alike(levels(tmp_path / "crossed"), levels(tmp_path / "torch"))


def test_generated_pictures_are_those_of_pytorch(run, exported_generator, tmp_path):
    generator, folder = exported_generator
    mergevq.save(generator, tmp_path / "gen")
    asked = ["--classes", "0,2", "--number", 2, "--temperature", 0, "--guidance", 2]
    assert run("generate", "--checkpoint", tmp_path / "gen", *asked, "--out", tmp_path / "torch")[0] == 0
    chosen = ["--checkpoint", folder, "--runtime", "onnx"]
    assert run("generate", *chosen, *asked, "--out", tmp_path / "onnx")[0] == 0
    assert len(levels(tmp_path / "onnx")) == 4
    assert alike(levels(tmp_path / "onnx"), levels(tmp_path / "torch"))
    code, said = run("encode", *chosen, tmp_path, "--out", tmp_path / "t.npz")
    assert code == 2 and "holds a generator" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runtime", "onnx", "--keep", "20"], "no encoder for 20 kept tokens; there is one for 17, 32"),
        (["--runtime", "onnx", "--size", "64"], "these graphs take (B, 3, 32, 32)"),
        (["--runtime", "onnx", "--provider", "tensort"], "did you mean 'tensorrt'"),
        (["--runtime", "onnx", "--provider", "cann"], "not in the installed ONNX Runtime; available: "),
        (["--runtime", "onnx", "--device", "cpu"], "--device is for PyTorch"),
        (["--provider", "cpu"], "--provider is for ONNX Runtime"),
        ([], "holds exported graphs; add --runtime onnx, or tensorrt"),
    ],
)
def test_bad_options(run, exported, image_folder, tmp_path, arguments, said):
    code, line = run(
        "encode", "--checkpoint", exported, image_folder, "--out", tmp_path / "t.npz", *arguments
    )
    assert code == 2 and said in line
    assert not (tmp_path / "t.npz").exists()


def test_compiling_is_for_pytorch(run, exported_generator, tmp_path):
    chosen = ["--checkpoint", exported_generator[1], "--runtime", "onnx", "--out", tmp_path / "s"]
    code, said = run("generate", *chosen, "--compile")
    assert code == 2 and "--compile is for PyTorch" in said


def test_a_tokenizer_does_not_generate(run, exported, tmp_path):
    code, said = run("generate", "--checkpoint", exported, "--runtime", "onnx", "--out", tmp_path / "s")
    assert code == 2 and "holds a tokenizer" in said


@pytest.mark.parametrize("file", ["decoder.onnx", "encoder_k32.onnx", MANIFEST])
def test_a_damaged_folder(run, copied, image_folder, tmp_path, file):
    folder = copied()
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    chosen = ["--checkpoint", folder, "--runtime", "onnx"]
    code, said = run("encode", *chosen, image_folder, "--out", tmp_path / "t.npz")
    assert code == 2 and said.startswith("mergevq: error: ") and file in said


def test_tokens_that_do_not_fit(run, exported, image_folder, tmp_path):
    chosen = ["--checkpoint", exported, "--runtime", "onnx"]
    assert run("encode", *chosen, image_folder, "--out", tmp_path / "t.npz")[0] == 0
    with np.load(tmp_path / "t.npz") as stored:
        arrays = dict(stored)
    for name, value, said in [
        ("indices", arrays["indices"] + 256, "outside the tokenizer's 256"),
        ("source", arrays["source"] + 32, "source points outside the 32 tokens"),
        ("tokenizer", np.array("0" * 64), "made by another tokenizer"),
    ]:
        np.savez(tmp_path / "bad.npz", **{**arrays, name: value})
        code, line = run("decode", *chosen, tmp_path / "bad.npz", "--out", tmp_path / "d")
        assert code in (1, 2) and said in line
