"""The folders of graphs that are timed: made and verified once for a model and a precision, or the user's own.

A folder's name is a hash of all that the graphs depend on: the weights, the configuration, what is asked for, the
source files that make graphs, and the versions of the packages. So a folder of exports may be kept between runs.
Graphs that were not verified, or failed, are never timed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import mergevq
from mergevq.bench.subjects.verified import check_verified
from mergevq.config import to_dict
from mergevq.errors import UnusableExportError, UsageError
from mergevq.export.checking.verification import tokenizer_of, verify
from mergevq.export.engines.folder import build_engines
from mergevq.export.exporter import export_onnx
from mergevq.export.manifest import Precision, files_of, read_manifest
from mergevq.export.runtime.engine_graphs import EngineGraphs
from mergevq.generation.pipeline import ImageGenerator
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.files import sha256

GIVEN = os.environ.get("MERGEVQ_BENCH_EXPORT")
"""A folder of the user's, instead of exports made here."""

_MAKERS = ("backends", "export", "models")
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def export_of(
    model: Tokenizer | ImageGenerator,
    precision: Precision,
    keeps: Sequence[int],
    root: Path,
    *,
    winograd: bool = False,
) -> Path:
    """A verified folder of a model's graphs.

    Args:
        model: on the CPU.
        precision: of the graphs.
        keeps: kept counts of a tokenizer, an encoder each; a generator has none.
        root: where exports are kept.
        winograd: as of `export_onnx`.

    Raises:
        ExportError: the graphs do not do what the model does.
        UnusableExportError: the user's folder was not verified, or failed.
        UsageError: it holds something else, or a package is missing.
    """
    if GIVEN:
        return _given(Path(GIVEN), model, precision)
    out = root / _name(model, precision, keeps, winograd)
    with _one_at_a_time(root / f".{out.name}.lock"):
        if not out.exists():
            keep = keeps if isinstance(model, Tokenizer) else None
            export_onnx(model, out, keep=keep, precision=precision, winograd=winograd)
    check_verified(out)
    return out


def make_engines(folder: Path, model: Tokenizer | ImageGenerator) -> None:
    """Has TensorRT engines of the graphs that were verified on the card that is there; those of the user must be so.

    Raises:
        DeviceUnavailableError: there is no card, or no TensorRT.
        ExportError: an engine cannot be built, or does not do what the model does.
        UnusableExportError: the user's engines are missing, damaged, not verified, or failed.
    """
    if not GIVEN:
        build_engines(folder)
    graphs = EngineGraphs(folder)
    if graphs.verification is None and not GIVEN:
        verify(folder, model, runtime="tensorrt").raise_if_failed()
    elif graphs.verification is None or not graphs.verification.get("passed"):
        raise UnusableExportError(
            f"{graphs.engines} was not verified or failed, and what may compute something else is not timed; run "
            "`mergevq export verify --runtime tensorrt`"
        )


def graph_bytes(folder: Path, keep: int) -> int:
    """The size of its graphs with their weights; of encoders, the one for `keep` tokens."""
    manifest = read_manifest(folder)
    graphs = [graph for graph in manifest.graphs if graph.keep in (None, keep)]
    names = {name for graph in graphs for name in files_of(manifest, graph)}
    return sum(manifest.files[name].bytes for name in names)


def _given(folder: Path, model: Tokenizer | ImageGenerator, precision: Precision) -> Path:
    manifest = read_manifest(folder)
    if manifest.fingerprint != fingerprint(tokenizer_of(model)):
        raise UsageError(f"{folder} was exported from another checkpoint")
    kind = "generator" if isinstance(model, ImageGenerator) else "tokenizer"
    if manifest.kind != kind:
        raise UsageError(f"{folder} holds a {manifest.kind}, and a {kind} is wanted")
    if manifest.precision != precision:
        raise UsageError(f"{folder} computes in {manifest.precision}")
    check_verified(folder)
    return folder


def _name(
    model: Tokenizer | ImageGenerator, precision: Precision, keeps: Sequence[int], winograd: bool
) -> str:
    config = model.model.config if isinstance(model, ImageGenerator) else model.config
    described = {
        "weights": _weights(model),
        "config": to_dict(config),
        "precision": precision,
        "keeps": sorted(keeps),
        "winograd": winograd,
        "sources": _sources(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{config.name.replace(' ', '-')}-{precision}-{digest[:16]}"


def _weights(model: Tokenizer | ImageGenerator) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy())
    return digest.hexdigest()


@functools.cache
def _sources() -> list[str]:
    """The hashes of the source files that decide what a graph is."""
    home = Path(mergevq.__file__).resolve().parent
    return [sha256(path) for part in _MAKERS for path in sorted((home / part).rglob("*.py"))]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise UsageError(f"{package} is not installed: pip install mergevq[export]") from error


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Has other processes wait, on systems that know such locks: an export takes minutes."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
