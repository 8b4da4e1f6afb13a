"""What tests in every folder share: one thread, fixed seeds, a folder of small photographs, a subprocess."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import mergevq

torch.set_num_threads(1)
# How long an example may take says more of what else the machine does than of the code.
settings.register_profile("mergevq", deadline=None)
settings.load_profile("mergevq")
# Every fall back to a reference is an error; set before mergevq.backends is imported, which reads it.
os.environ.setdefault("MERGEVQ_STRICT", "1")
# Before tests import it themselves: the package sets it where it imports ONNX Runtime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Class, photograph shipped with scikit-image, crop box in pixels: (left, top, right, bottom).
CROPS = [
    ("face", "chelsea", (100, 60, 180, 140)),
    ("face", "chelsea", (180, 80, 244, 144)),
    ("face", "chelsea", (60, 20, 124, 68)),
    ("face", "chelsea", (240, 100, 304, 164)),
    ("face", "astronaut", (180, 60, 260, 140)),
    ("face", "astronaut", (190, 90, 238, 154)),
    ("thing", "coffee", (200, 100, 280, 180)),
    ("thing", "coffee", (260, 140, 324, 204)),
    ("thing", "coffee", (120, 60, 200, 124)),
    ("thing", "rocket", (280, 60, 360, 140)),
    ("thing", "rocket", (300, 160, 348, 224)),
    ("thing", "astronaut", (380, 20, 444, 84)),
]


TINY = {
    **{
        f"{part}.{key}": value
        for part, depth in (("encoder", 2), ("decoder", 1))
        for key, value in {"channels": 8, "width": 32, "heads": 2, "depth": depth}.items()
    },
    "recovery.width": 32,
    "recovery.heads": 2,
    "recovery.depth": 1,
    "quantizer.bits": 8,
}
"""Overrides of tiny-32 that make a tokenizer of milliseconds."""


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same global random states."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def photo_crops() -> list[tuple[str, Image.Image]]:
    """Twelve crops of photographs, 48 to 80 px a side, each with its class; not to be changed."""
    from skimage import data

    photos = {name: Image.fromarray(getattr(data, name)()) for _, name, _ in CROPS}
    return [(label, photos[name].crop(box)) for label, name, box in CROPS]


@pytest.fixture
def image_folder(tmp_path: Path, photo_crops: list[tuple[str, Image.Image]]) -> Path:
    """A folder of twelve small pictures, `face/` and `thing/`, half of them JPEG and half PNG."""
    root = tmp_path / "images"
    for number, (label, picture) in enumerate(photo_crops):
        (root / label).mkdir(parents=True, exist_ok=True)
        suffix = "jpg" if number % 2 else "png"
        picture.save(root / label / f"{number:02}.{suffix}", quality=95)
    return root


@pytest.fixture(scope="session")
def token_home(tmp_path_factory: pytest.TempPathFactory, photo_crops: list[tuple[str, Image.Image]]) -> Path:
    """A folder with a tokenizer, `tok`, and the tokens of twelve pictures of two classes, `tokens`."""
    from mergevq.data.images.sources import open_source
    from mergevq.data.tokens.extraction import describe, extract

    home = tmp_path_factory.mktemp("stage2")
    torch.manual_seed(0)
    tokenizer = mergevq.create("tiny-32", **TINY).eval()
    mergevq.save(tokenizer, home / "tok")
    for number, (label, picture) in enumerate(photo_crops):
        (home / "images" / label).mkdir(parents=True, exist_ok=True)
        picture.save(home / "images" / label / f"{number:02}.png")
    source = open_source(str(home / "images"), "all")
    meta = describe(tokenizer, source, "all", counts=(24, 40), views=3, shard_size=5)
    extract(tokenizer, source, home / "tokens", meta)
    return home


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python on the given arguments, in another directory, with the mergevq that is under test."""
    home = Path(mergevq.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {"cwd": tmp_path, "env": environment, "timeout": 300, **options}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **settings)

    return run
