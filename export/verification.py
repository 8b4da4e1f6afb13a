"""Verification: the saved files, then what they compute, against the model that they were made from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from mergevq.backends import reference_only
from mergevq.config import TokenizerConfig
from mergevq.errors import CheckpointError
from mergevq.export.generator_checks import generator_checks
from mergevq.export.manifest import Manifest, digest_of, read_manifest
from mergevq.export.report import Check, VerifyReport
from mergevq.export.sessions import PROVIDER, Sessions
from mergevq.export.static_checks import static_checks
from mergevq.export.tokenizer_checks import decoder_checks, encoder_checks
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generation.store import load
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer import Tokenizer


def verify(folder: str | Path, model: str | Path | Tokenizer | ImageGenerator) -> VerifyReport:
    """Compares the graphs of a folder with the model that they were made from, and writes verify.json.

    Args:
        folder: of an export.
        model: the tokenizer or the generator in evaluation mode on the CPU, or where its checkpoint is.

    Returns:
        Every check with its number; whether all passed is `passed`.

    Raises:
        CheckpointError: a file is missing or changed, or the graphs were made from another model.
        ExportError: a graph does not run at all.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    model = loaded(model)
    _check_origin(manifest, model, folder)
    started = time.perf_counter()
    checks = tuple(_checks(folder, manifest, model))
    report = VerifyReport(
        manifest=digest_of(folder),
        provider=PROVIDER,
        versions={name: version(name) for name in ("onnxruntime", "torch")},
        checks=checks,
        seconds=time.perf_counter() - started,
    )
    report.write(folder)
    return report


def loaded(model: str | Path | Tokenizer | ImageGenerator) -> Tokenizer | ImageGenerator:
    """A model itself, or the one of a checkpoint."""
    return load(model) if isinstance(model, (str, Path)) else model


def tokenizer_of(model: Tokenizer | ImageGenerator) -> Tokenizer:
    """A tokenizer itself, or that of a generator."""
    return model.tokenizer if isinstance(model, ImageGenerator) else model


def _checks(folder: Path, manifest: Manifest, model: Tokenizer | ImageGenerator) -> Iterator[Check]:
    """First what the files are; what they compute only where that is in order."""
    found = static_checks(folder, manifest)
    yield from found
    if not all(check.passed for check in found):
        return
    sessions = Sessions(folder)
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
