"""A tiny tokenizer on disk, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import mergevq
from mergevq.cli import main

TINY = {
    **{f"{part}.{key}": value for part in ("encoder", "decoder") for key, value in
       {"channels": 8, "width": 32, "heads": 1, "depth": 2}.items()},
    "recovery.width": 32,
    "recovery.heads": 1,
    "recovery.depth": 1,
    "quantizer.bits": 8,
}  # fmt: skip
"""Overrides of tiny-32: 32 px, 64 positions, 32 kept, 16 the fewest, milliseconds a picture."""


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence of a command that failed: the last line, and the only one of its kind."""
        lines = self.err.strip().splitlines()
        assert "Traceback" not in self.err
        assert self.code in (1, 2)
        assert [line for line in lines if line.startswith("mergevq: error: ")] == lines[-1:], self.err
        return lines[-1].removeprefix("mergevq: error: ")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "tok"
    torch.manual_seed(0)
    mergevq.save(mergevq.create("tiny-32", **TINY), folder)
    return folder


@pytest.fixture
def mergevq_main(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Calls the command line in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def mergevq_process(run_python: Callable[..., object]) -> Callable[..., Result]:
    """Runs the command line as a user does."""

    def run(*arguments: object, **options: object) -> Result:
        done = run_python("-m", "mergevq", *map(str, arguments), **options)
        return Result(done.returncode, done.stdout, done.stderr)  # type: ignore[attr-defined]

    return run


@pytest.fixture
def broken_jpeg(image_folder: Path) -> Path:
    """A truncated JPEG in the folder of pictures."""
    whole = next(image_folder.rglob("*.jpg"))
    path = image_folder / "face" / "broken.jpg"
    path.write_bytes(whole.read_bytes()[:400])
    return path
