"""An exported folder to the object that runs it."""

from __future__ import annotations

import logging
from pathlib import Path

from mergevq.errors import UsageError
from mergevq.export.runtime.generator import OnnxGenerator
from mergevq.export.runtime.sessions import Graphs
from mergevq.export.runtime.tokenizer import OnnxTokenizer

logger = logging.getLogger(__name__)


def open_folder(
    folder: str | Path, provider: str = "cpu", threads: int | None = None
) -> OnnxTokenizer | OnnxGenerator:
    """The tokenizer or the generator of an exported folder.

    Args:
        folder: of `mergevq export onnx`.
        provider: "cpu", "cuda", "tensorrt" or "cann".
        threads: at least 1; by default OMP_NUM_THREADS where that is set, else ONNX Runtime's own choice.

    Raises:
        UnusableExportError: the folder is no export, or a file is missing, truncated or another.
        UsageError: an unknown provider, or an impossible number of threads.
        DeviceUnavailableError: the provider cannot be used here.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; at least 1 is wanted, or None for ONNX Runtime's own choice")
    folder = Path(folder)
    graphs = Graphs(folder, provider, threads)
    if graphs.verification is None or not graphs.verification.get("passed"):
        state = "was not verified" if graphs.verification is None else "failed its verification"
        logger.warning("%s %s; `mergevq export verify` compares it with its model", folder, state)
    if graphs.manifest.generator is None:
        return OnnxTokenizer(graphs)
    return OnnxGenerator(graphs, graphs.manifest.generator)
