"""The graphs of a folder at work, for verification: on the CPU, or as engines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mergevq.errors import ExportError
from mergevq.export.manifest import GraphSpec
from mergevq.export.runtime.engine_graphs import EngineGraphs
from mergevq.export.runtime.providers import runtime_module
from mergevq.export.runtime.sessions import session_options

PROVIDER = "CPUExecutionProvider"


class Sessions(Protocol):
    """Runs graphs by their description."""

    def run(self, spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Raises:
            ExportError: the graph is refused, or fails on these inputs.
        """


class EngineSessions:
    """TensorRT engines, whose graphs were verified before."""

    def __init__(self, graphs: EngineGraphs):
        self._graphs = graphs

    def run(self, spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Sessions`."""
        return self._graphs.run(spec.role, inputs, keep=spec.keep, part=spec.part)


class OnnxSessions:
    """ONNX Runtime on the CPU; the latest four graphs stay loaded, a step and its heads say.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._open = lru_cache(maxsize=4)(self._opened)

    def run(self, spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Sessions`."""
        names = [tensor.name for tensor in spec.outputs]
        try:
            found = self._open(spec.file).run(names, dict(inputs))
        except Exception as error:  # ONNX Runtime's classes share no public base
            shapes = {name: list(value.shape) for name, value in inputs.items() if "." not in name}
            reason = str(error).strip().splitlines()[0]
            raise ExportError(f"{spec.file} does not run on {shapes}: {reason}") from error
        return dict(zip(names, found, strict=True))

    def _opened(self, file: str) -> Any:
        options = session_options(torch.get_num_threads())
        return runtime_module().InferenceSession(str(self.folder / file), options, providers=[PROVIDER])
