"""The graphs of a folder with ONNX Runtime, each opened when it is first run.

On the CPU, pictures of a batch are shared out among threads (see `portions`), by a session with one thread; a single
picture goes to a session with all of them. Whoever has both kinds of batches holds the weights twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mergevq.errors import CheckpointError, ExportError, UnusableExportError
from mergevq.export.manifest import (
    MANIFEST,
    GraphSpec,
    Manifest,
    Role,
    check_files,
    digest_of,
    read_manifest,
    read_verification,
)
from mergevq.export.runtime.portions import divided, joined, portions
from mergevq.export.runtime.providers import check_used, execution_providers, runtime_module
from mergevq.storage.files import read_steadily

_ERRORS_ONLY = 3
_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}


class OnnxGraphs:
    """Runs graphs with ONNX Runtime.

    Args:
        folder: of an export; every file is compared with the manifest's hash.
        provider: a name of `PROVIDERS`.
        threads: None takes OMP_NUM_THREADS where that is set, else what ONNX Runtime chooses.

    Attributes:
        manifest: what the folder says of itself.
        verification: the content of verify.json; None where there is none of this manifest.

    Raises:
        UnusableExportError: the folder is no export, or a file is missing, truncated or another.
        UsageError, DeviceUnavailableError: the provider is unknown or cannot be used.
    """

    def __init__(self, folder: Path, provider: str, threads: int | None):
        self.providers = execution_providers(provider)
        self.provider = provider
        self.folder = folder
        self.threads = _threads_from_environment() if threads is None else threads
        try:
            read_steadily([folder / MANIFEST], self._read)
        except CheckpointError as error:
            raise UnusableExportError(str(error)) from error
        self._sessions: dict[tuple[str, int], Any] = {}

    def run(
        self,
        role: Role,
        inputs: Mapping[str, np.ndarray],
        *,
        keep: int | None = None,
        part: int | None = None,
    ) -> dict[str, np.ndarray]:
        """See `Graphs.run`."""
        spec = self.manifest.graph(role, keep, part)
        rows = self._portions(spec, inputs)
        if len(rows) < 2:
            return self._call(spec, inputs, self.threads)
        self._session(spec.file, 1)  # before threads ask for it, and open one each
        parts = divided(spec, inputs, rows)
        return joined(list(self._pool.map(lambda some: self._call(spec, some, 1), parts)))

    def _read(self) -> None:
        self.manifest: Manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest)
        self.verification = read_verification(self.folder)
        self._digest = digest_of(self.folder)

    def _portions(self, spec: GraphSpec, inputs: Mapping[str, np.ndarray]) -> list[slice]:
        """Of the pictures, on a CPU; a step of a generator has the same weights for all rows, and is not divided."""
        if self.provider != "cpu" or spec.role not in ("encoder", "decoder"):
            return [slice(None)]
        batch = len(inputs[spec.inputs[0].name])
        return portions(batch, self.threads or _cores(), self.manifest.tokenizer.image_size**2)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads or _cores(), thread_name_prefix="mergevq")

    def _call(self, spec: GraphSpec, inputs: Mapping[str, np.ndarray], threads: int) -> dict[str, np.ndarray]:
        names = [tensor.name for tensor in spec.outputs]
        session = self._session(spec.file, threads)
        try:
            found = session.run(names, {tensor.name: inputs[tensor.name] for tensor in spec.inputs})
        except Exception as error:  # ONNX Runtime's classes share no public base
            raise ExportError(f"{spec.file} fails on {self.provider}: {_first_line(error)}") from error
        return dict(zip(names, found, strict=True))

    def _session(self, file: str, threads: int) -> Any:
        if (file, threads) not in self._sessions:
            self._sessions[file, threads] = self._open(file, threads)
        return self._sessions[file, threads]

    def _open(self, file: str, threads: int) -> Any:
        onnxruntime = runtime_module()
        options = session_options(threads)
        self._check_unchanged()
        try:
            session = onnxruntime.InferenceSession(str(self.folder / file), options, providers=self.providers)
        except Exception as error:
            raise UnusableExportError(
                f"{self.folder / file} cannot be opened on {self.provider}: {_first_line(error)}"
            ) from error
        check_used(self.provider, session.get_providers(), file)
        self._check_described(session, file)
        return session

    def _check_described(self, session: Any, file: str) -> None:
        """Raises UnusableExportError where a graph is not what the manifest says: an edited one can be hashed again."""
        spec = next(graph for graph in self.manifest.graphs if graph.file == file)
        for found, wanted in ((session.get_inputs(), spec.inputs), (session.get_outputs(), spec.outputs)):
            there = [(value.name, value.type, list(value.shape)) for value in found]
            if there != [(tensor.name, _TYPES[tensor.dtype], list(tensor.shape)) for tensor in wanted]:
                raise UnusableExportError(
                    f"{self.folder / file} is not the graph that {MANIFEST} describes; export again"
                )

    def _check_unchanged(self) -> None:
        """Raises UnusableExportError where another export has taken the place of this one: their graphs do not mix."""
        try:
            same = digest_of(self.folder) == self._digest
        except CheckpointError:
            same = False
        if not same:
            raise UnusableExportError(f"{self.folder} was exported anew after it was opened; open it again")


def session_options(threads: int) -> Any:
    """Options of a session among others: a step and its heads, say, or PyTorch in the same process.

    Between the nodes of a call threads look for work, as waking one takes longer than a small node; that made R's
    encoder 5 to 9 % faster. Between calls they sleep, as they would slow whatever has its turn.

    Args:
        threads: of the session; 0 lets ONNX Runtime choose.

    Returns:
        onnxruntime.SessionOptions.
    """
    options = runtime_module().SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _threads_from_environment() -> int:
    """OMP_NUM_THREADS, or 0, with which ONNX Runtime chooses."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def _cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
