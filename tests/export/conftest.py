"""A tiny tokenizer and its export; made once, not to be changed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
from filelock import FileLock

import mergevq
from mergevq.export import Ranges, build_engines, export_onnx
from mergevq.export.rewrites import shared_weights
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generator_config import GeneratorKind
from mergevq.models.tokenizer.tokenizer import Tokenizer

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


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first process of a run makes, which takes half a minute, and all use; not to be changed."""
    root = factory.getbasetemp()
    out = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with FileLock(f"{out}.lock"):
        if not out.exists():
            make(out)
    return out


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """Loads a module that stands beside the tests, by name."""

    def load(name: str) -> ModuleType:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
            assert spec is not None and spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return load


@pytest.fixture
def install_tensorrt(
    beside: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Puts a stand-in for a card and one for a flavour in the place of those that may be there; gives the card."""
    cuda, tensorrt = beside("cuda_standin"), beside("tensorrt_standin")

    def call(card: Any = None, flavor: str = "tensorrt", version: str = "11.4.0.106") -> Any:
        card = card or cuda.Card()
        bindings = ModuleType("cuda.bindings")
        runtime = cuda.cuda_module(card)
        bindings.runtime = runtime  # type: ignore[attr-defined]
        names = {
            "tensorrt": None,
            "tensorrt_rtx": None,
            "cuda": ModuleType("cuda"),
            "cuda.bindings": bindings,
        }
        module = tensorrt.tensorrt_module(card, rtx=flavor == "tensorrt-rtx", version=version)
        names |= {"cuda.bindings.runtime": runtime, flavor.replace("-", "_"): module}
        for name, each in names.items():
            monkeypatch.setitem(sys.modules, name, each)
        return card

    return call


@pytest.fixture
def card(install_tensorrt: Callable[..., Any]) -> Any:
    """A stand-in for a card, and TensorRT's in its place."""
    return install_tensorrt()


@pytest.fixture
def with_engines(card: Any, copied: Callable[[], Path]) -> Path:
    """A copy of the export that may be damaged, with the stand-in's engines of all of its graphs."""
    copy = copied()
    build_engines(copy, ranges=Ranges(batch=(1, 2, 4)))
    return copy


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """64 positions, codes of 8 bits, random weights."""
    torch.manual_seed(0)
    return mergevq.create("tiny-32", **TINY).eval()


@pytest.fixture(scope="session")
def exported(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of an odd and an even number of merges, decoder and recovery; only recovery holds its own weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_weights, "INLINE_BYTES", 80_000)
        return once(tmp_path_factory, "tiny", lambda out: export_onnx(tiny_tokenizer, out, keep=[32, 17]))


@pytest.fixture(scope="session")
def exported_any(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder for any kept count, decoder and recovery."""
    return once(tmp_path_factory, "any", lambda out: export_onnx(tiny_tokenizer, out, dynamic_keep=True))


@pytest.fixture(scope="session")
def exported_half(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder, decoder and recovery that compute in float16."""
    return once(tmp_path_factory, "half", lambda out: export_onnx(tiny_tokenizer, out, precision="fp16"))


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the export that may be damaged."""

    def copy() -> Path:
        return Path(shutil.copytree(exported, tmp_path / "copy"))

    return copy


def small_generator(kind: GeneratorKind, tokenizer: Tokenizer) -> ImageGenerator:
    """Two layers and two counts, with logits that are not all zero, as those of a new one are."""
    torch.manual_seed(1)
    generator = mergevq.create_generator(
        "nano", kind, tokenizer, depth=2, classes=5, window=4, counts=(20, 22, 32), dropout=0.0
    )
    with torch.no_grad():
        for weight in generator.model.head.outputs.parameters():
            weight.normal_(std=0.2)
    if kind == "rand_ar":
        order = torch.rand(12, 63).argsort(dim=1).argsort(dim=1)
        others = order < torch.tensor([19, 21]).repeat(6)[:, None]
        positions = torch.cat([torch.ones(12, 1, dtype=torch.bool), others], dim=1)  # 0 always begins a token
        generator.model.remember_layouts(positions, torch.arange(12) % 5)
    return generator


@pytest.fixture(scope="session", params=get_args(GeneratorKind))
def exported_generator(
    request: pytest.FixtureRequest, tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ImageGenerator, Path]:
    """A generator of each kind, and the folder of its graphs that share their weights, not to be changed."""
    generator = small_generator(request.param, tiny_tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_weights, "INLINE_BYTES", 80_000)
        return generator, once(tmp_path_factory, request.param, lambda out: export_onnx(generator, out))
