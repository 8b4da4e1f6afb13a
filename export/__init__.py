"""Deployment: a model as a folder of ONNX graphs, and the proof that they do what the model does.

Two halves that do not mix. Making and verifying graphs needs PyTorch, onnx and onnxscript. What a run time
needs of a folder (`manifest`, `source_map`) and what builds engines of one (`engines`) never imports PyTorch, and so
the names below are looked up on first use.

    report = mergevq.export.export_onnx("runs/tok", "deployed", keep=[36, 144])
    report = mergevq.export.verify("deployed", "runs/tok")
    report = mergevq.export.build_engines("deployed")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if not __name__.startswith("mergevq."):
    raise ImportError("import mergevq.export, not export: two names would mean two sets of classes")

if TYPE_CHECKING:
    from mergevq.export.checking.report import VerifyReport
    from mergevq.export.checking.verification import verify
    from mergevq.export.engines.folder import EngineReport, build_engines
    from mergevq.export.engines.ranges import Ranges
    from mergevq.export.exporter import ExportReport, export_onnx
    from mergevq.export.manifest import Manifest, read_manifest

__all__ = [
    "EngineReport",
    "ExportReport",
    "Manifest",
    "Ranges",
    "VerifyReport",
    "build_engines",
    "export_onnx",
    "read_manifest",
    "verify",
]

_HOMES = {
    "EngineReport": "mergevq.export.engines.folder",
    "Ranges": "mergevq.export.engines.ranges",
    "build_engines": "mergevq.export.engines.folder",
    "ExportReport": "mergevq.export.exporter",
    "Manifest": "mergevq.export.manifest",
    "VerifyReport": "mergevq.export.checking.report",
    "export_onnx": "mergevq.export.exporter",
    "read_manifest": "mergevq.export.manifest",
    "verify": "mergevq.export.checking.verification",
}


def __getattr__(name: str) -> Any:
    """Imports what a name needs."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'mergevq.export' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
