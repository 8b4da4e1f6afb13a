"""The graphs of a folder as TensorRT engines, each opened when it is first run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from mergevq.errors import CheckpointError, UnusableExportError
from mergevq.export.engines.flavors import Toolkit, installed, toolkit
from mergevq.export.engines.sidecar import (
    Sidecar,
    check_engine_file,
    check_usable,
    read_sidecars,
)
from mergevq.export.manifest import (
    ENGINES,
    MANIFEST,
    GraphSpec,
    Manifest,
    Role,
    check_files,
    digest_of,
    files_of,
    read_manifest,
    read_verification,
)
from mergevq.export.runtime.cuda import Cuda
from mergevq.export.runtime.engine import Engine
from mergevq.storage.files import read_steadily


class EngineGraphs:
    """What `OnnxGraphs` is for ONNX Runtime; the graphs themselves need not be there, only what describes them.

    Args:
        folder: of an export.
        engines: of `build_engines`; by default `engines` in the folder.

    Attributes:
        provider: the flavour.
        version: of the flavour.
        engines: the folder of the engines.
        digest: SHA-256 of the manifest and of the engines, by which their verification says what it speaks of.
        verification: of these engines (`mergevq export verify --runtime tensorrt`), not of the graphs.

    Raises:
        DeviceUnavailableError: no flavour is installed, or there is no card.
        UnusableExportError: there are no engines, or one is damaged, of another graph or version, or for another card.
    """

    def __init__(self, folder: Path, engines: Path | None = None):
        kits = installed() or [toolkit()]  # which says what is missing
        self._cuda = Cuda()
        self.folder = folder
        self.engines = folder / ENGINES if engines is None else engines
        try:
            there = [folder / MANIFEST, *sorted(self.engines.glob("*.engine*"))]
            read_steadily(there, lambda: self._read(kits))
        except CheckpointError as error:
            raise UnusableExportError(str(error)) from error
        self.provider: str = self._toolkit.flavor
        self.version = self._toolkit.version
        self._open: dict[str, Engine] = {}

    def _read(self, kits: list[Toolkit]) -> None:
        self.manifest: Manifest = read_manifest(self.folder)
        check_files(self.folder, self.manifest, _beside_graphs(self.manifest))
        self._toolkit, self._sidecars = self._found(kits)
        self.digest = _digest(digest_of(self.folder), self._sidecars.values())
        self.verification = read_verification(self.engines, self.digest)
        for sidecar in self._sidecars.values():
            check_usable(sidecar, self.manifest, self._toolkit, self._cuda.capability)
            check_engine_file(sidecar, self.engines)

    def run(
        self,
        role: Role,
        inputs: Mapping[str, np.ndarray],
        *,
        keep: int | None = None,
        part: int | None = None,
    ) -> dict[str, np.ndarray]:
        """See `Graphs.run`; a shape that the engine was not built for is a UsageError."""
        spec = self.manifest.graph(role, keep, part)
        if spec.file not in self._open:
            self._open[spec.file] = self._opened(spec)
        return self._open[spec.file].run(inputs)

    def _opened(self, spec: GraphSpec) -> Engine:
        sidecar = self._sidecars.get(spec.file)
        if sidecar is None:
            raise UnusableExportError(
                f"{self.engines} has no engine of {spec.file} for {self._toolkit.flavor}; build it with `mergevq "
                f"export engine {self.folder} --graphs {spec.role}`"
            )
        content = (self.engines / sidecar.file).read_bytes()
        if sidecar.engine is None or hashlib.sha256(content).hexdigest() != sidecar.engine.sha256:
            raise UnusableExportError(
                f"{self.engines / sidecar.file} was built anew after it was opened; open it again"
            )
        return Engine(self._toolkit, self._cuda, spec, sidecar, content)

    def _found(self, kits: list[Toolkit]) -> tuple[Toolkit, dict[str, Sidecar]]:
        """The first flavour that is installed and has engines, and those; of several those for this card."""
        every = read_sidecars(self.engines)
        graphs = {graph.file for graph in self.manifest.graphs}
        for kit in kits:
            ours = [each for each in every if each.flavor == kit.flavor and each.graph in graphs]
            if ours:
                ours.sort(key=lambda each: self._cuda.capability in each.targets)
                return kit, {each.graph: each for each in ours}
        there = sorted({each.flavor for each in every})
        have = ", ".join(kit.flavor for kit in kits)
        said = (
            f"has engines of {', '.join(there)} alone, and {have} is installed" if there else "has no engines"
        )
        raise UnusableExportError(
            f"{self.engines} {said}; build them with `mergevq export engine {self.folder}`"
        )


def _digest(manifest: str, sidecars: Iterable[Sidecar]) -> str:
    engines = sorted(each.engine.sha256 for each in sidecars if each.engine is not None)
    return hashlib.sha256("".join([manifest, *engines]).encode()).hexdigest()


def _beside_graphs(manifest: Manifest) -> list[str]:
    """The files that are no graphs: where tokens of rand_ar begin."""
    graphs = {name for graph in manifest.graphs for name in files_of(manifest, graph)}
    return [name for name in manifest.files if name not in graphs]
