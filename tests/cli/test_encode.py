"""encode: what is in the file, and every picture that it cannot use."""

from __future__ import annotations

import argparse
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mergevq
from mergevq.cli.shared import common
from mergevq.data.images.decode import load_image
from mergevq.data.images.formats.limits import DEFAULT_LIMITS
from mergevq.data.images.transforms import center_crop, to_float
from mergevq.data.tokens.file import load_tokens
from mergevq.models.store import fingerprint


def test_pictures_to_tokens_and_back(mergevq_process, tiny, image_folder, tmp_path):
    out = tmp_path / "new" / "tokens.npz"
    result = mergevq_process("encode", "--checkpoint", tiny, image_folder, "--out", out, "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    assert (summary["pictures"], summary["keep"], summary["grid"], summary["skipped"]) == (12, 32, [8, 8], 0)

    tokenizer = mergevq.load(tiny)
    file = load_tokens(out)
    assert file.names[0] == "face/00.png" and file.tokenizer == fingerprint(tokenizer) == summary["tokenizer"]
    path = image_folder / file.names[3]
    expected = tokenizer.encode(to_float(center_crop(load_image(path), 32))[None])
    assert torch.equal(file.tokens[3:4].indices, expected.indices)
    assert torch.equal(file.tokens[3:4].source, expected.source)
    with np.load(out, allow_pickle=False) as arrays:
        assert arrays["indices"].dtype == np.int32 and arrays["names"].shape == (12,)


def test_keep_size_and_batches(mergevq_main, tiny, image_folder, tmp_path):
    files = sorted(image_folder.rglob("*.png"))[:3]
    common = ("encode", "--checkpoint", tiny, *files, "--keep", 40, "--size", 48)
    assert mergevq_main(*common, "--out", tmp_path / "a.npz", "--batch-size", 1).code == 0
    assert mergevq_main(*common, "--out", tmp_path / "b.npz").code == 0
    one, three = load_tokens(tmp_path / "a.npz"), load_tokens(tmp_path / "b.npz")
    assert three.tokens.keep == 40 and three.tokens.grid == (12, 12)
    assert three.names == [path.name for path in files] == one.names
    assert (one.tokens.indices == three.tokens.indices).float().mean() > 0.99


def test_original_size_cuts_to_the_stride(mergevq_main, tiny, tmp_path):
    for name, size in {"a.png": (50, 31), "b.png": (51, 28), "c.png": (40, 40)}.items():
        Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).save(tmp_path / name)
    result = mergevq_main(
        "encode", "--checkpoint", tiny, tmp_path, "--original-size", "--out", tmp_path / "t.npz"
    )
    assert result.error == "1 of 3 pictures had to be left out; the others are done"
    assert "c.png gives 40 x 40 px and the pictures before it 48 x 28" in result.err
    file = load_tokens(tmp_path / "t.npz")
    assert file.names == ["a.png", "b.png"] and file.tokens.grid == (7, 12) and file.tokens.keep == 42


@pytest.mark.parametrize("sizes", [(), ("--original-size",), ("--size", 48)])
def test_pictures_beyond_the_limits_are_left_out(mergevq_main, tiny, tmp_path, sizes):
    for name, size in {"a.png": (50, 31), "strip.png": (150, 1), "wide.png": (90, 70)}.items():
        Image.new("RGB", size, "red").save(tmp_path / name)
    arguments = ("encode", "--checkpoint", tiny, tmp_path, "--out", tmp_path / "t.npz")
    result = mergevq_main(*arguments, *sizes, "--max-pixels", 6000)
    assert result.error == "2 of 3 pictures had to be left out; the others are done"
    assert "strip.png: 150 x 1 px" in result.err and "max_aspect is 100" in result.err
    assert "wide.png: 90 x 70 px" in result.err and "max_pixels is 6000" in result.err
    assert mergevq_main(*arguments, "--size", 32, "--max-aspect", 150).code == 0


def test_a_picture_smaller_than_a_patch(mergevq_main, tiny, tmp_path):
    Image.new("RGB", (3, 2), "red").save(tmp_path / "dot.png")
    arguments = ("encode", "--checkpoint", tiny, tmp_path / "dot.png", "--out", tmp_path / "t.npz")
    assert mergevq_main(*arguments).code == 0  # the evaluation crop enlarges it
    (tmp_path / "t.npz").unlink()
    result = mergevq_main(*arguments, "--original-size")
    assert result.code == 1 and "3 x 2 px is smaller than one patch of 4 px" in result.err
    assert result.error == "no picture could be read, of 1" and not (tmp_path / "t.npz").exists()


def test_a_broken_picture_is_named_and_the_others_are_written(
    mergevq_process, tiny, image_folder, broken_jpeg, tmp_path
):
    result = mergevq_process("encode", "--checkpoint", tiny, image_folder, "--out", tmp_path / "t.npz")
    assert result.error == "1 of 13 pictures had to be left out; the others are done" and result.code == 1
    assert str(broken_jpeg) in result.err
    assert len(load_tokens(tmp_path / "t.npz").names) == 12


def _texts(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda tmp: tmp / "nowhere.png", 2, "nowhere.png does not exist"),
        (lambda tmp: (tmp / "empty").mkdir() or tmp / "empty", 1, "holds no pictures"),
        (lambda tmp: _texts(tmp / "texts"), 1, "1 x .txt"),
        (lambda tmp: _texts(tmp / "texts") / "notes.txt", 1, "no picture could be read, of 1"),
        (lambda tmp: "builtin:foto", 2, "did you mean 'photos'?"),
    ],
    ids=["missing", "empty", "texts", "text", "builtin"],
)
def test_paths_without_pictures(mergevq_main, tiny, tmp_path, make, code, said):
    result = mergevq_main("encode", "--checkpoint", tiny, make(tmp_path), "--out", tmp_path / "t.npz")
    assert result.code == code and said in result.error
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--keep", 3), "the nearest count that can be reached is 16"),
        (("--keep", 65), "the nearest count that can be reached is 64"),
        (("--keep", 65, "--original-size"), "the nearest count"),
        (("--size", 30), "not a multiple of the stride 4; the nearest is 32"),
        (("--size", 1), "the nearest is 4"),
        (("--device", "cda"), "did you mean 'cuda'?"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(mergevq_main, tiny, tmp_path, options, said):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    result = mergevq_main(
        "encode", "--checkpoint", tiny, tmp_path / "a.png", "--out", tmp_path / "t.npz", *options
    )
    assert result.code == 2 and said in result.error and not (tmp_path / "t.npz").exists()


def test_an_absent_device_is_refused(mergevq_main, tiny, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator here")
    result = mergevq_main(
        "encode", "--checkpoint", tiny, "builtin:photos", "--out", tmp_path / "t.npz", "--device", "cuda"
    )
    assert result.code == 2 and result.error.startswith("device cuda cannot be used: ")


def _edit_config(folder, change):
    described = json.loads((folder / "config.json").read_text())
    change(described)
    (folder / "config.json").write_text(json.dumps(described))


def _other_preset(folder):
    other = mergevq.create("tiny-32", **{"recovery.depth": 1})
    mergevq.save(other, folder / "other")
    shutil.copy(folder / "other" / "config.json", folder / "config.json")


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _tamper(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"encoder": print}))
    import hashlib

    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    _edit_config(folder, lambda described: described.update(sha256=digest))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_other_preset, "truncated or is not the file"),
        (
            lambda folder: _edit_config(folder, lambda d: d["config"]["encoder"].update(depth=3)),
            "does not fit",
        ),
        (lambda folder: _edit_config(folder, lambda d: d["config"].update(typo=3)), "unknown key 'typo'"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (_truncate, "truncated"),
        (_tamper, "truncated or is not the file"),
        (_pickle, "cannot be read as safetensors"),
    ],
)
def test_a_spoilt_checkpoint_is_one_sentence(mergevq_main, tiny, tmp_path, spoil, said):
    folder = shutil.copytree(tiny, tmp_path / "tok")
    spoil(folder)
    result = mergevq_main("encode", "--checkpoint", folder, "builtin:photos", "--out", tmp_path / "t.npz")
    assert result.code == 1 and said in result.error


class _Harmful:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickled_training_checkpoint_is_not_executed(mergevq_main, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(_Harmful()))
    torch.save({"state_dict": {}, "x": _Harmful()}, tmp_path / "zip.ckpt")
    for name in ("last.ckpt", "zip.ckpt"):
        result = mergevq_main(
            "encode", "--checkpoint", tmp_path / name, "builtin:photos", "--out", tmp_path / "t.npz"
        )
        assert result.code == 1 and "cannot be read safely" in result.error
        assert "executed" not in result.out


def test_an_output_that_cannot_be_written(mergevq_main, tiny, tmp_path):
    (tmp_path / "file").touch()
    for out, said in ((tmp_path / "file" / "t.npz", "cannot write"), (tmp_path, "is a folder")):
        result = mergevq_main("encode", "--checkpoint", tiny, "builtin:photos", "--out", out)
        assert result.code == 1 and said in result.error


def test_the_help_names_the_limits():
    parser = argparse.ArgumentParser()
    common.add_limits(parser)
    text = parser.format_help()
    assert f"[{DEFAULT_LIMITS.max_pixels}]" in text and f"[{DEFAULT_LIMITS.max_aspect:g}]" in text
    assert common.limits(parser.parse_args([])) == DEFAULT_LIMITS
