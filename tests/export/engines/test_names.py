"""Every name of TensorRT that the package uses exists in both flavours, with one signature.

The libraries of TensorRT for data centres are not on the public index, so its side is tensorrt_names.json, which
tensorrt_names.py reads off its bindings.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mergevq.export.engines import building, flavors
from mergevq.export.runtime import cuda, engine

HERE = Path(__file__).parents[1]
DATACENTER = json.loads((HERE / "tensorrt_names.json").read_text(encoding="utf-8"))

MODULES = ("module", "self.module", "toolkit.module", "self._toolkit.module")
# What the package calls each object, to the class of TensorRT that it is of.
OBJECTS = {
    building: {
        "builder": "Builder",
        "config": "IBuilderConfig",
        "config.get_timing_cache()": "ITimingCache",
        "error": "ParserError",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
        "tensor": "ITensor",
    },
    flavors: {"severities": "ILogger.Severity"},
    engine: {
        "engine": "ICudaEngine",
        "runtime": "Runtime",
        "self._context": "IExecutionContext",
        "self._engine": "ICudaEngine",
        "self._runtime": "Runtime",
    },
}
# Everything else that has an attribute looked up, which is Python's, NumPy's or the package's own.
OTHERS = {
    building: "toolkit settings toolkit.errors each graph path temporary target error.desc()",
    flavors: "logging name self found super() log errors message known",
    engine: "np self self._sidecar profile array toolkit toolkit.errors tensor self._toolkit.errors arrays outputs "
    "self._cuda array.ctypes self._toolkit wanted spec self._spec self._buffers[name] name.lower() "
    "self._buffers[tensor.name] reasons each sidecar name",
}
ONLY_RTX = {
    ("", "ComputeCapability"),
    ("", "EngineInvalidityDiagnostics"),
    ("", "EngineValidity"),
    ("EngineValidity", "INVALID"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("Runtime", "get_engine_validity"),
}


def lookups(source: Any) -> Iterator[tuple[str, str]]:
    """What is looked up, and in what, as it is written; the names of getattr and hasattr too."""
    for node in ast.walk(ast.parse(inspect.getsource(source))):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("getattr", "hasattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            yield ast.unparse(node.args[0]), node.args[1].value


def used() -> set[tuple[str, str]]:
    """(class, name); the class of a name of the module itself is empty. All that the package uses of TensorRT."""
    found = set()
    for source, objects in OBJECTS.items():
        others = OTHERS[source].split()
        for base, name in lookups(source):
            holder, _, last = base.rpartition(".")
            if name.startswith("__") or base.startswith(("'", '"')) or base in others:
                continue
            if base in MODULES:
                found.add(("", name))
            elif holder in MODULES:  # an enumeration
                found.add((last, name))
            else:
                assert base in objects, f"{source.__name__}: say of what class {base!r} is"
                found.add((objects[base], name))
    return found


def holds(names: dict[str, Any], owner: str, name: str) -> bool:
    if owner == "ILogger.Severity":  # checked where there is a module
        return "Severity" in names["classes"]["ILogger"]
    return name in (names["top"] if not owner else names["classes"].get(owner, {}))


def test_enough_is_looked_at():
    assert {
        ("", "Builder"),
        ("IExecutionContext", "execute_async_v3"),
        ("IOptimizationProfile", "set_shape_input"),
        ("BuilderFlag", "TF32"),
        ("Runtime", "get_engine_validity"),
    } <= used()
    assert len(used()) > 45


def test_names_are_in_tensorrt_for_data_centres():
    assert DATACENTER["version"] == "11.4.0.106" and len(DATACENTER["sha256"]) == 64
    missing = {each for each in used() if not holds(DATACENTER, *each)}
    assert missing == ONLY_RTX


@pytest.fixture
def rtx(beside):
    return beside("tensorrt_names").described(pytest.importorskip("tensorrt_rtx"))


def test_names_are_in_tensorrt_rtx(rtx):
    assert {each for each in used() if not holds(rtx, *each)} == set()


def test_severities():
    severities = pytest.importorskip("tensorrt_rtx").ILogger.Severity
    wanted = {name for owner, name in used() if owner == "ILogger.Severity"}
    assert wanted == {"ERROR", "INTERNAL_ERROR"} and wanted <= set(severities.__members__)


def test_both_flavours_are_called_alike(rtx):
    both = [(owner, name) for owner, name in used() - ONLY_RTX if owner in DATACENTER["classes"]]
    both += [(owner, "__init__") for owner in ("Builder", "OnnxParser", "Runtime")]
    for owner, name in both:
        ours, theirs = (set(each["classes"][owner][name].split("; ")) for each in (rtx, DATACENTER))
        assert ours <= theirs, (owner, name)  # which has overloads of its own
    assert DATACENTER["classes"]["IExecutionContext"]["execute_async_v3"].endswith("-> bool")


def test_names_of_cuda_bindings():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    wanted = {
        (base, name) for base, name in lookups(cuda) if base in ("runtime", "self._runtime", "attributes")
    }
    assert {name for base, name in wanted if base == "runtime"} >= {"cudaGetDeviceCount", "cudaStreamCreate"}
    for base, name in wanted:
        assert hasattr(runtime.cudaDeviceAttr if base == "attributes" else runtime, name), name
    kinds, errors = runtime.cudaMemcpyKind, runtime.cudaError_t
    assert kinds.cudaMemcpyHostToDevice != kinds.cudaMemcpyDeviceToHost and errors.cudaSuccess == 0
    assert runtime.cudaGetErrorString(errors.cudaErrorMemoryAllocation)[1] == b"out of memory"


def test_the_stand_in_has_no_other_names(beside):
    standin = beside("tensorrt_standin")
    for each in (*standin.SHARED, standin.Builder, standin.Runtime):
        own = {name for name in vars(each) if not name.startswith("_")}
        assert own <= set(DATACENTER["classes"][each.__name__]), each.__name__
    runtime = pytest.importorskip("cuda.bindings.runtime")
    cuda_standin = beside("cuda_standin")
    names = vars(cuda_standin.cuda_module(cuda_standin.Card()))
    assert all(hasattr(runtime, name) for name in names if not name.startswith("_"))
