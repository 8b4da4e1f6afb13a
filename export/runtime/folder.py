"""An exported folder to the object that runs it."""

from __future__ import annotations

import logging
from pathlib import Path

from mergevq.errors import UsageError
from mergevq.export.runtime.engine_graphs import EngineGraphs
from mergevq.export.runtime.generator.generator import ArrayGenerator
from mergevq.export.runtime.graphs import Graphs
from mergevq.export.runtime.sessions import OnnxGraphs
from mergevq.export.runtime.tokenizer import ArrayTokenizer
from mergevq.inputs import checked_integer
from mergevq.storage.files import expanded

MOST_THREADS = 1024

logger = logging.getLogger(__name__)


def open_folder(
    folder: str | Path, provider: str = "cpu", threads: int | None = None
) -> ArrayTokenizer | ArrayGenerator:
    """The tokenizer or the generator of an exported folder, with ONNX Runtime.

    Args:
        folder: of `mergevq export onnx`.
        provider: "cpu", "cuda", "tensorrt" or "cann".
        threads: 1 to 1024; by default OMP_NUM_THREADS where that is set, else ONNX Runtime's own choice.

    Raises:
        UnusableExportError: the folder is no export, or a file is missing, truncated or another.
        UsageError: an unknown provider, or an impossible number of threads.
        DeviceUnavailableError: the provider cannot be used here.
    """
    if threads is not None and not 1 <= checked_integer("threads", threads) <= MOST_THREADS:
        raise UsageError(
            f"threads is {threads}; 1 to {MOST_THREADS} are wanted, or None for ONNX Runtime's own choice"
        )
    return _opened(OnnxGraphs(expanded(folder), provider, threads), "verify")


def open_engines(folder: str | Path, engines: str | Path | None = None) -> ArrayTokenizer | ArrayGenerator:
    """The tokenizer or the generator of an exported folder, with TensorRT or TensorRT-RTX.

    Args:
        folder: of `mergevq export onnx`.
        engines: of `mergevq export engine`; by default `engines` in the folder.

    Raises:
        UnusableExportError: there are no engines, or they are damaged, of another graph or version, or for another
            card.
        DeviceUnavailableError: neither flavour is installed, or there is no card.
    """
    found = EngineGraphs(expanded(folder), None if engines is None else expanded(engines))
    return _opened(found, "verify --runtime tensorrt")


def _opened(graphs: Graphs, remedy: str) -> ArrayTokenizer | ArrayGenerator:
    if graphs.verification is None or not graphs.verification.get("passed"):
        state = "was not verified" if graphs.verification is None else "failed its verification"
        logger.warning(
            "%s on %s %s; `mergevq export %s` compares it with its model",
            graphs.folder,
            graphs.provider,
            state,
            remedy,
        )
    if graphs.manifest.generator is None:
        return ArrayTokenizer(graphs)
    return ArrayGenerator(graphs, graphs.manifest.generator)
