"""What can be said of saved graphs without running them: each check reads the file, not what the exporter meant.

A graph may load and even run and still be wrong: an axis frozen at the length it was traced at, weights of another
export beside it, an operator that some engine computes wrongly or not at all.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from mergevq.export.checking.report import Check
from mergevq.export.manifest import GraphSpec, Manifest, TensorSpec, check_files, files_of

DENIED = frozenset(
    {
        "Attention",  # ONNX Runtime and TensorRT-RTX refuse some of its forms
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "If",
        "Loop",
        "NonZero",
        "Scan",
        "TopK",
    }
)
"""Operators that some engine cannot build, or, as it is reported, builds wrongly."""
_REDUCING = frozenset({"ScatterElements", "ScatterND"})
_PATH = re.compile(r"(^|[\s\"'(=:])(/[\w.+-]+){2,}|[A-Za-z]:\\\w")


def static_checks(folder: Path, manifest: Manifest) -> list[Check]:
    """Looks at every file of a folder.

    Raises:
        CheckpointError: a file is not the one that the manifest describes.
    """
    check_files(folder, manifest)
    return [
        Check(graph=graph.file, name=name, passed=not problem, worst=problem)
        for graph in manifest.graphs
        for name, problem in _problems(folder, manifest, graph)
    ]


def _problems(folder: Path, manifest: Manifest, spec: GraphSpec) -> Iterator[tuple[str, str]]:
    """The name of each check, with what is wrong or nothing."""
    import onnx

    try:
        model = onnx.load(str(folder / spec.file), load_external_data=False)
    except Exception as error:  # protobuf's own class
        yield "checker", f"it is not a graph: {str(error).strip().splitlines()[0]}"
        return
    yield "checker", _first_failure(lambda: _check(folder / spec.file, list(manifest.files)))
    yield "operator set", _opset_problem(model, manifest.opset)
    yield "inputs", _signature_problem(model.graph.input, spec.inputs)
    yield "outputs", _signature_problem(model.graph.output, spec.outputs)
    yield "operators", _operator_problem(model)
    yield "local paths", next((f"{text!r}" for text in _texts(model) if _PATH.search(text)), "")
    yield "external data", _data_problem(model, folder, files_of(manifest, spec))


def _check(graph: Path, files: list[str]) -> None:
    """ONNX's checker, which refuses weights behind links: where they stand is `_data_problem`'s to look at."""
    import onnx

    with tempfile.TemporaryDirectory() as name:
        for each in files:
            (Path(name) / each).touch()
        shutil.copyfile(graph, Path(name) / graph.name)
        onnx.checker.check_model(str(Path(name) / graph.name))


def _first_failure(check: Callable[[], object]) -> str:
    try:
        check()
    except Exception as error:  # the checker's own class, protobuf's, or the system's
        return str(error).strip().splitlines()[0]
    return ""


def _opset_problem(model: Any, wanted: int) -> str:
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    used = {node.domain or "ai.onnx" for node in _nodes(model.graph)}
    if model.functions:
        return "has functions of its own"
    return (
        "" if used <= {"ai.onnx"} and found.get("ai.onnx") == wanted else f"is {found}, used {sorted(used)}"
    )


def _signature_problem(values: Any, tensors: tuple[TensorSpec, ...]) -> str:
    """The first difference of names, types or axes."""
    import onnx

    if [value.name for value in values] != [tensor.name for tensor in tensors]:
        return f"are {[value.name for value in values]}"
    for value, tensor in zip(values, tensors, strict=True):
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
        if {"float": "float32"}.get(kind, kind) != tensor.dtype:
            return f"{tensor.name} is {kind} and should be {tensor.dtype}"
        shape = tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
        if shape != tensor.shape:
            return f"{tensor.name} is {list(shape)} and should be {list(tensor.shape)}"
    return ""


def _operator_problem(model: Any) -> str:
    for node in _nodes(model.graph):
        if node.op_type in DENIED:
            return f"{node.op_type} ({node.name})"
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type in _REDUCING and attributes.get("reduction") and attributes["reduction"].s != b"none":
            return f"{node.op_type} with reduction ({node.name})"
    return ""


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of inner graphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _texts(model: Any) -> Iterator[str]:
    """Everything in a model that is not a number; entries of external data are looked at elsewhere."""
    yield from (model.doc_string, model.producer_name, model.graph.name, model.graph.doc_string)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        yield from (value.name, value.doc_string)
        yield from (entry.value for entry in value.metadata_props)
    for tensor in model.graph.initializer:
        yield from (tensor.name, tensor.doc_string)
    for node in _nodes(model.graph):
        yield from (node.name, node.doc_string, *node.input, *node.output)
        yield from (entry.value for entry in node.metadata_props)
        yield from (attribute.s.decode(errors="replace") for attribute in node.attribute)
    yield from (entry.value for entry in (*model.metadata_props, *model.graph.metadata_props))


def _data_problem(model: Any, folder: Path, files: list[str]) -> str:
    """Whether weights that stand apart are where the graph looks for them, within a file that is hashed."""
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if not entries:
            continue
        name = entries.get("location", "")
        if PureWindowsPath(name).name != name or name not in files:
            return f"{tensor.name} is in {name!r}, which the manifest does not list"
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if end > (folder / name).stat().st_size:
            return f"{name} is shorter than {tensor.name} needs"
    return ""
