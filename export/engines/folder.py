"""A folder of graphs to a folder of engines: each is built once for what decides it, and then kept."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mergevq.errors import UnusableExportError, UsageError, unknown_name
from mergevq.export.engines.building import BuildSettings, build_engine
from mergevq.export.engines.flavors import Toolkit, toolkit
from mergevq.export.engines.ranges import Ranges, profiles
from mergevq.export.engines.sidecar import (
    SUFFIX,
    Sidecar,
    check_engine_file,
    graph_files,
    read_sidecar,
    sidecar_path,
)
from mergevq.export.manifest import ENGINES, GraphSpec, Manifest, check_files, entry, files_of, read_manifest
from mergevq.export.runtime.cuda import Cuda
from mergevq.storage.files import atomic, expanded, writing

logger = logging.getLogger(__name__)

_WITHOUT_FLOAT32 = ("7.5",)
"""Cards for which TensorRT-RTX has no float32 matrix products; every graph holds some, whatever its precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReport:
    """What there is of engines after a build."""

    folder: Path
    engines: tuple[Sidecar, ...]
    built: tuple[str, ...]
    """The files that were not there yet."""
    seconds: float


def build_engines(
    folder: str | Path,
    *,
    flavor: str = "auto",
    targets: Sequence[str] | None = None,
    ranges: Ranges | None = None,
    graphs: Sequence[str] | None = None,
    tf32: bool = False,
    out: str | Path | None = None,
) -> EngineReport:
    """Builds the engines of an exported folder that are not there yet.

    Args:
        folder: of `export_onnx`.
        flavor: "tensorrt", "tensorrt-rtx", or "auto", the first of them that is installed.
        targets: compute capabilities of the cards, "8.6" say, for TensorRT-RTX, which needs no card to build; by
            default all from 8.0 on that it knows. TensorRT builds for the card that is there.
        ranges: of the free axes.
        graphs: roles; by default all.
        tf32: whether float32 products may be rounded to ten bits of mantissa.
        out: where the engines go; by default `engines` in the folder.

    Raises:
        CheckpointError: the folder is no export, or a file is truncated or another.
        UsageError: an unknown flavour, target or role, impossible ranges, or graphs of int8 or for CPUs.
        DeviceUnavailableError: the flavour is not installed, or needs a card and there is none.
        ExportError: a graph cannot be built.
        OutputError: an engine cannot be written.
    """
    started = time.perf_counter()
    folder = expanded(folder)
    manifest = read_manifest(folder)
    if manifest.precision == "int8":
        raise UsageError(
            f"{folder} holds int8 graphs, whose operators TensorRT does not take; export in fp32 or fp16 for engines"
        )
    if manifest.winograd:
        raise UsageError(f"{folder} was exported for CPUs, with --winograd; export without it for engines")
    chosen = _chosen(manifest, graphs)
    out = folder / ENGINES if out is None else expanded(out)
    build = _Build.of(toolkit(flavor), targets, tf32, out)
    wanted = [build.describe(manifest, spec, ranges or Ranges()) for spec in chosen]
    check_files(folder, manifest, [name for spec in chosen for name in files_of(manifest, spec)])
    engines, built = [], []
    for each in wanted:
        found = _kept(each, out)
        if found is None:
            found = build.run(folder, each, out)
            built.append(found.file)
        engines.append(found)
    seconds = time.perf_counter() - started
    return EngineReport(folder=out, engines=tuple(engines), built=tuple(built), seconds=seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Build:
    """What is the same for all engines of a call."""

    kit: Toolkit
    driver: int | None
    settings: BuildSettings

    @classmethod
    def of(cls, kit: Toolkit, targets: Sequence[str] | None, tf32: bool, out: Path) -> _Build:
        """For the targets, or for the card that is there."""
        if kit.targets:
            settings = BuildSettings(targets=_targets(kit, targets), tf32=tf32, timings=None)
            return cls(kit=kit, driver=None, settings=settings)
        cuda = Cuda()
        if targets is not None and list(targets) != [cuda.capability]:
            raise UsageError(
                f"{kit.name} builds for the card that is there, whose compute capability is {cuda.capability}; leave "
                "out targets, or choose the flavour tensorrt-rtx"
            )
        card = re.sub(r"[^a-z0-9]+", "-", cuda.name.lower()).strip("-")
        timings = out / f"timings-{card}-{kit.version}.cache"
        settings = BuildSettings(targets=(cuda.capability,), tf32=tf32, timings=timings)
        return cls(kit=kit, driver=cuda.driver, settings=settings)

    def describe(self, manifest: Manifest, spec: GraphSpec, ranges: Ranges) -> Sidecar:
        """The engine of a graph that is wanted."""
        # An engine that is for one card does not take the place of one for another.
        card = "" if self.kit.targets else "-sm" + self.settings.targets[0].replace(".", "")
        return Sidecar(
            graph=spec.file,
            files=graph_files(manifest, spec),
            flavor=self.kit.flavor,
            version=self.kit.version,
            targets=self.settings.targets,
            tf32=self.settings.tf32,
            profiles=profiles(manifest, spec, ranges),
            driver=self.driver,
            file=f"{spec.file.removesuffix('.onnx')}.{self.kit.flavor}{card}{SUFFIX}",
        )

    def run(self, folder: Path, wanted: Sidecar, out: Path) -> Sidecar:
        """Builds and writes an engine and its sidecar, both or none."""
        started = time.perf_counter()
        logger.info("%s: building with %s", wanted.graph, self.kit.name)
        content = build_engine(self.kit, folder / wanted.graph, wanted.profiles, self.settings)
        path = out / wanted.file
        with writing(path):
            out.mkdir(parents=True, exist_ok=True)
            with atomic(path, sidecar_path(path)) as (engine, sidecar):
                engine.write_bytes(content)
                seconds = round(time.perf_counter() - started, 3)
                written = replace(wanted, engine=entry(engine), seconds=seconds)
                written.write(sidecar)
        return written


def _kept(wanted: Sidecar, out: Path) -> Sidecar | None:
    """The engine that is there already, where it is what is wanted and whole."""
    try:
        found = read_sidecar(sidecar_path(out / wanted.file))
        check_engine_file(found, out)
    except UnusableExportError:
        return None
    return found if found.key == wanted.key else None


def _chosen(manifest: Manifest, roles: Sequence[str] | None) -> list[GraphSpec]:
    known = list(dict.fromkeys(graph.role for graph in manifest.graphs))
    for role in roles or ():
        if role not in known:
            raise UsageError(unknown_name("graph", role, known))
    return [graph for graph in manifest.graphs if roles is None or graph.role in roles]


def _targets(kit: Toolkit, asked: Sequence[str] | None) -> tuple[str, ...]:
    """In the order of the toolkit."""
    for target in asked or ():
        if target not in kit.targets:
            raise UsageError(
                f"{kit.name} does not build for compute capability {target!r}; it builds for {', '.join(kit.targets)}"
            )
    if asked is None:
        return tuple(target for target in kit.targets if target not in _WITHOUT_FLOAT32)
    return tuple(target for target in kit.targets if target in asked)
