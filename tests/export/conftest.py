"""A tiny tokenizer and its export; made once, not to be changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.export import export_onnx, writing
from mergevq.models.tokenizer import Tokenizer

TINY = {
    **{
        f"{part}.{key}": value
        for part in ("encoder", "decoder")
        for key, value in {"channels": 8, "width": 32, "heads": 1, "depth": 2, "layer_scale": 0.5}.items()
    },
    "recovery.width": 32,
    "recovery.heads": 1,
    "recovery.depth": 1,
    "quantizer.bits": 8,
}
"""Overrides of tiny-32: 32 px, 64 positions, 32 kept, 16 the fewest."""


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """64 positions, codes of 8 bits, random weights."""
    torch.manual_seed(0)
    return mergevq.create("tiny-32", **TINY).eval()


@pytest.fixture(scope="session")
def exported(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of an odd and an even number of merges, decoder and recovery; only recovery holds its own weights."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "INLINE_BYTES", 80_000)
        export_onnx(tiny_tokenizer, out, keep=[32, 17])
    return out


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the export that may be damaged."""

    def copy() -> Path:
        return Path(shutil.copytree(exported, tmp_path / "copy"))

    return copy
