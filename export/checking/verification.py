"""Verification: the saved files, then what they compute, against the model that they were made from."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from mergevq.backends import reference_only
from mergevq.config import TokenizerConfig
from mergevq.errors import CheckpointError, UsageError, unknown_name
from mergevq.export.checking.report import Check, VerifyReport
from mergevq.export.checking.sessions import PROVIDER, EngineSessions, OnnxSessions, Sessions
from mergevq.export.checking.static_checks import static_checks
from mergevq.export.generator.checks import generator_checks
from mergevq.export.manifest import Manifest, digest_of, read_manifest
from mergevq.export.runtime.engine_graphs import EngineGraphs
from mergevq.export.tokenizer.decoder_checks import decoder_checks
from mergevq.export.tokenizer.encoder_checks import encoder_checks
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generation.store import load
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.files import expanded

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What making and verifying graphs needs beside PyTorch."""


def verify(
    folder: str | Path,
    model: str | Path | Tokenizer | ImageGenerator,
    *,
    runtime: Literal["onnx", "tensorrt"] = "onnx",
    engines: str | Path | None = None,
) -> VerifyReport:
    """Compares the graphs of a folder with the model that they were made from, and writes verify.json.

    Args:
        folder: of an export.
        model: the tokenizer or the generator on the CPU, or where its checkpoint is.
        runtime: "onnx", ONNX Runtime on the CPU; or "tensorrt", the engines of the graphs, and then verify.json goes
            where they are.
        engines: their folder; by default `engines` in the folder.

    Returns:
        Every check with its number; whether all passed is `passed`.

    Raises:
        CheckpointError: a file is missing or changed, or the graphs were made from another model.
        ExportError: a graph does not run at all.
        DeviceUnavailableError: engines cannot be run here.
        UsageError: a package that this needs is not installed, or the model is not a float32 one on the CPU.
    """
    if runtime not in ("onnx", "tensorrt"):
        raise UsageError(unknown_name("run time", runtime, ("onnx", "tensorrt")))
    check_packages()
    folder = expanded(folder)
    manifest = read_manifest(folder)
    model = loaded(model)
    _check_origin(manifest, model, folder)
    ran = _on_engines(folder, engines) if runtime == "tensorrt" else _on_onnx_runtime(folder)
    started = time.perf_counter()
    with evaluating(model):
        checks = tuple(_checks(folder, manifest, model, ran.sessions))
    report = VerifyReport(
        manifest=ran.digest,
        provider=ran.provider,
        versions={ran.package: ran.version, "torch": version("torch")},
        checks=checks,
        seconds=time.perf_counter() - started,
    )
    report.write(ran.home)
    return report


@dataclass(frozen=True)
class _Ran:
    """What runs the graphs, and where its report goes."""

    sessions: Sessions
    provider: str
    package: str
    version: str
    home: Path
    digest: str


def _on_onnx_runtime(folder: Path) -> _Ran:
    package = "onnxruntime"
    return _Ran(OnnxSessions(folder), PROVIDER, package, version(package), folder, digest_of(folder))


def _on_engines(folder: Path, engines: str | Path | None) -> _Ran:
    graphs = EngineGraphs(folder, None if engines is None else expanded(engines))
    return _Ran(
        EngineSessions(graphs),
        graphs.provider,
        graphs.provider,
        graphs.version,
        graphs.engines,
        graphs.digest,
    )


def check_packages() -> None:
    """Raises UsageError where one of `PACKAGES` is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}: pip install mergevq[export]")


def loaded(model: str | Path | Tokenizer | ImageGenerator) -> Tokenizer | ImageGenerator:
    """A model itself, or the one of a checkpoint.

    Raises:
        UsageError: the model is not on the CPU, or not of float32.
    """
    if isinstance(model, (str, Path)):
        return load(model)
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise UsageError(
            f"the model is {weight.dtype} on {weight.device}; export takes a float32 model on the CPU, "
            "and `precision` decides what the graphs compute in"
        )
    return model


@contextlib.contextmanager
def evaluating(model: Tokenizer | ImageGenerator) -> Iterator[None]:
    """Has a model in evaluation mode, and then as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def tokenizer_of(model: Tokenizer | ImageGenerator) -> Tokenizer:
    """A tokenizer itself, or that of a generator."""
    return model.tokenizer if isinstance(model, ImageGenerator) else model


def _checks(
    folder: Path, manifest: Manifest, model: Tokenizer | ImageGenerator, sessions: Sessions
) -> Iterator[Check]:
    """First what the files are; what they compute only where that is in order."""
    found = static_checks(folder, manifest)
    yield from found
    if not all(check.passed for check in found):
        return
    tokenizer = tokenizer_of(model)
    # The references: what the operators mean, where a device's own implementation only comes close.
    with torch.inference_mode(), reference_only():
        yield from decoder_checks(manifest, tokenizer, sessions)
        yield from encoder_checks(manifest, tokenizer, sessions)
        if isinstance(model, ImageGenerator):
            yield from generator_checks(manifest, model.model, sessions)


def _check_origin(manifest: Manifest, model: Tokenizer | ImageGenerator, folder: Path) -> None:
    generator = model.model.config if isinstance(model, ImageGenerator) else None
    tokenizer = tokenizer_of(model)
    ours: tuple[TokenizerConfig, object] = (tokenizer.config, generator)
    if ours != (manifest.tokenizer, manifest.generator) or fingerprint(tokenizer) != manifest.fingerprint:
        raise CheckpointError(
            f"{folder} was exported from another model; give the checkpoint that it was made from"
        )
