"""The page on deployment: its script runs where neither PyTorch nor mergevq exists, its commands parse."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mergevq.cli import build_parser, parse
from mergevq.data.images.decode import load_image
from mergevq.data.images.transforms import center_crop, to_float, to_uint8

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
CONSTRAINTS = Path(__file__).resolve().parents[3] / "constraints.txt"
NEEDED = ["numpy", "pillow", "onnxruntime"]
WITHOUT = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(['torch', 'mergevq', 'onnx'])); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def script(tmp_path):
    text = next(block for block in blocks("python") if block.startswith("# roundtrip.py"))
    assert len(text.splitlines()) <= 40
    (tmp_path / "roundtrip.py").write_text(text)
    return tmp_path / "roundtrip.py"


def test_the_script_makes_the_models_picture(
    script, run_python, exported, tiny_tokenizer, image_folder, tmp_path
):
    picture = image_folder / "thing" / "06.png"
    result = run_python("-c", WITHOUT, script, str(exported), str(picture), "painted.png")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "17 codes of 8 bits for 64 positions"
    found = np.asarray(Image.open(tmp_path / "painted.png"), int).transpose(2, 0, 1)
    with torch.no_grad():
        tokens = tiny_tokenizer.encode(to_float(center_crop(load_image(picture), 32)[None]), 17)
        wanted = to_uint8(tiny_tokenizer.decode(tokens))[0].numpy().astype(int)
    assert abs(found - wanted).max() <= 1


@pytest.fixture
def photo(tmp_path):
    """A picture that is stored lying on its side, as telephones do."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC).save(path, exif=exif, quality=95)
    return path


def test_a_picture_of_a_telephone_is_upright(script, run_python, exported, tiny_tokenizer, photo, tmp_path):
    result = run_python("-c", WITHOUT, script, str(exported), str(photo), "painted.png")
    assert result.returncode == 0, result.stderr
    found = np.asarray(Image.open(tmp_path / "painted.png"), int).transpose(2, 0, 1)
    with torch.no_grad():
        tokens = tiny_tokenizer.encode(to_float(center_crop(load_image(photo), 32)[None]), 17)
        wanted = to_uint8(tiny_tokenizer.decode(tokens))[0].numpy().astype(int)
    assert abs(found - wanted).max() <= 1


@pytest.mark.skipif(os.environ.get("MERGEVQ_DEPLOY") != "full", reason="MERGEVQ_DEPLOY is not full")
def test_the_script_in_an_environment_of_three_packages(script, exported, image_folder, tmp_path):
    """Nothing else is installed there, not even by accident."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    python = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *NEEDED, "-c", CONSTRAINTS], check=True)
    picture = image_folder / "thing" / "06.png"
    result = subprocess.run(
        [python, "-I", script, exported, picture, tmp_path / "painted.png"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "painted.png") as painted:
        assert painted.size == (32, 32)


def test_the_page_says_what_is_installed():
    assert f"`pip install {' '.join(NEEDED)}` is all" in PAGE


def test_the_script_refuses_another_file(script, run_python, copied, image_folder):
    folder = copied()
    (folder / "decoder.onnx").write_bytes((folder / "recovery.onnx").read_bytes())
    picture = image_folder / "thing" / "06.png"
    result = run_python("-c", WITHOUT, script, str(folder), str(picture), "painted.png")
    assert result.returncode == 1
    assert result.stderr.strip() == "decoder.onnx is not the file that was exported"


def test_the_commands_of_the_page(tmp_path):
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("mergevq ")]
    assert len(lines) == 4
    for line in lines:
        parse(build_parser(), shlex.split(line)[1:])
