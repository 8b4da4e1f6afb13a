"""What engines a folder has, without TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergevq.errors import UnusableExportError
from mergevq.export.engines.sidecar import (
    SUFFIX,
    check_engine_file,
    check_of_graph,
    read_sidecar,
)
from mergevq.export.manifest import ENGINES, Manifest


def described_engines(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Each engine of a folder of graphs, with what is wrong with it; "" is nothing.

    Args:
        folder: of the graphs.
        manifest: of the folder.
    """
    where = folder / ENGINES
    return [_described(path, manifest) for path in sorted(where.glob(f"*{SUFFIX}.json"))]


def _described(path: Path, manifest: Manifest) -> dict[str, Any]:
    try:
        sidecar = read_sidecar(path)
    except UnusableExportError as error:
        return {"file": path.name.removesuffix(".json"), "problem": str(error)}
    found: dict[str, Any] = {"file": sidecar.file, "problem": ""}
    try:
        check_of_graph(sidecar, manifest)
        check_engine_file(sidecar, path.parent)
    except UnusableExportError as error:
        found["problem"] = str(error)
    return {
        **found,
        "graph": sidecar.graph,
        "flavor": sidecar.flavor,
        "version": sidecar.version,
        "targets": list(sidecar.targets),
        "bytes": 0 if sidecar.engine is None else sidecar.engine.bytes,
    }
