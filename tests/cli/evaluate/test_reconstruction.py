"""evaluate reconstruction: numbers with their protocol, in three forms."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import mergevq
from mergevq.data.images.decode import load_image
from mergevq.data.images.transforms import center_crop, to_float, to_uint8
from mergevq.metrics.image import psnr

WORDS = ("evaluate", "reconstruction")


def test_table_json_and_plot(mergevq_process, tiny, image_folder, tmp_path):
    json_path, plot = tmp_path / "r.json", tmp_path / "r.png"
    outputs = ("--json", json_path, "--plot", plot, "--jpeg", 2, "--workers", 1)
    result = mergevq_process(
        *WORDS, "--checkpoint", tiny, "--data", image_folder, "--split", "all", "--keep", "16,64", *outputs
    )
    assert (result.code, result.err) == (0, f"data {image_folder}: 12 pictures, 2 classes (face, thing)\n")
    for word in ("PSNR", "JPEG PSNR", "mean colour", "split all", "short side to 32 px", "12 of 32 x 32 px"):
        assert word in result.out
    report = json.loads(json_path.read_text())
    assert [(row["keep"], row["source"]) for row in report["results"]] == [
        (16, "true"),
        (16, "recovered"),
        (64, "true"),
        (64, "recovered"),
    ]
    tokenizer = mergevq.load(tiny)
    files = sorted(path for path in image_folder.rglob("*.*"))
    images = torch.stack([center_crop(load_image(path), 32) for path in files])
    painted = to_uint8(tokenizer.decode(tokenizer.encode(to_float(images), 64)))
    assert report["results"][2]["psnr"] == pytest.approx(float(psnr(painted, images).mean()), abs=0.02)
    assert "of 64 tokens" not in result.out and report["protocol"]["data"].endswith("split all")
    with Image.open(plot) as figure:
        assert figure.width > 500


def test_default_counts_split_and_limit(mergevq_main, tiny):
    arguments = ("--data", "builtin:photos", "--limit", 3, "--workers", 0)
    result = mergevq_main(*WORDS, "--checkpoint", tiny, *arguments)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()[1:7]] == ["16", "16", "32", "32", "64", "64"]
    assert "builtin:photos, split val, 3 at the most" in result.out and "3 of 32 x 32 px" in result.out


def test_a_strip_ends_no_evaluation(mergevq_main, tiny, image_folder, tmp_path):
    Image.new("RGB", (40_000, 1), "red").save(image_folder / "strip.png")
    arguments = ("--data", image_folder, "--split", "all", "--keep", 64, "--workers", 0, "--size", 32)
    result = mergevq_main(*WORDS, "--checkpoint", tiny, *arguments)
    assert result.error == "1 of 13 pictures could not be read; the numbers are those of the others"
    assert "strip.png" in result.err and "40000 x 1 px" in result.err
    assert mergevq_main(*WORDS, "--checkpoint", tiny, *arguments, "--max-aspect", 40_000).code == 0


def test_a_broken_picture_is_named_and_counted(mergevq_main, tiny, broken_jpeg, tmp_path):
    out = tmp_path / "r.json"
    arguments = ("--data", broken_jpeg.parent, "--split", "all", "--keep", 64, "--json", out, "--workers", 0)
    result = mergevq_main(*WORDS, "--checkpoint", tiny, *arguments)
    assert result.code == 1 and str(broken_jpeg) in result.err
    assert result.error == "1 of 7 pictures could not be read; the numbers are those of the others"
    report = json.loads(out.read_text())
    assert report["results"][0]["images"] == 6 and report["protocol"]["left out"].startswith(
        "1 of 7 pictures"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "nowhere"), 2, "nowhere does not exist"),
        (("--keep", "15"), 2, "the nearest count that can be reached is 16"),
        (("--lpips", "vgg"), 2, "--lpips vgg is not understood; write"),
        (("--lpips", "vgh=nowhere"), 2, "did you mean 'vgg'?"),
        (("--features", "nonsense"), 2, "feature network 'nonsense' is not understood"),
        (("--features", "inception=nowhere.pth"), 2, "nowhere.pth"),
        (("--workers", "-1"), 2, "--workers: '-1' is not a positive integer"),
        (("--json", "/proc/nowhere/r.json"), 1, "cannot write /proc/nowhere/r.json"),
        (("--plot", "/proc/nowhere/r.png"), 1, "cannot write /proc/nowhere/r.png"),
    ],
)
def test_what_cannot_be_done(mergevq_main, tiny, arguments, code, said):
    result = mergevq_main(*WORDS, "--checkpoint", tiny, "--data", "builtin:photos", *arguments)
    assert result.code == code and said in result.error
    assert result.out == ""


def test_nothing_but_broken_pictures(mergevq_main, tiny, tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    result = mergevq_main(*WORDS, "--checkpoint", tiny, "--data", tmp_path, "--split", "all", "--workers", 0)
    assert result.code in (1, 2) and "no images were evaluated" in result.error
