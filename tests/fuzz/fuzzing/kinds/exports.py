"""What `mergevq export` and `mergevq bench` leave, and features that are remembered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzzing.case import Kind, Target
from fuzzing.kinds.models import senseless, tiny_generator, tiny_tokenizer
from fuzzing.kinds.settings import printed
from fuzzing.mutators.arrays import SAFETENSORS, ZIP
from fuzzing.mutators.places import NAMED, PLACES
from fuzzing.mutators.raw import BYTES
from fuzzing.mutators.trees import JSON

_BATCH, _KEEP = 0, 1
"""Axes of a graph's inputs."""


def _graph(
    path: Path, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, tuple[int, list[Any]]]
) -> None:
    """A graph with these inputs whose outputs are zeros: what it computes does not matter, what it is called does."""
    import onnx
    from onnx import TensorProto, helper

    first = next(iter(inputs))
    nodes = [helper.make_node("Shape", [first], ["shape"])]
    constants = [helper.make_tensor(f"at{n}", TensorProto.INT64, [1], [n]) for n in (_BATCH, _KEEP)]
    for name, (kind, shape) in outputs.items():
        parts = []
        for place, side in enumerate(shape):
            part = f"{name}{place}"
            if isinstance(side, int):
                constants.append(helper.make_tensor(part, TensorProto.INT64, [1], [side]))
            else:
                nodes.append(
                    helper.make_node("Gather", ["shape", "at0" if side == "batch" else "at1"], [part])
                )
            parts.append(part)
        nodes.append(helper.make_node("Concat", parts, [f"{name}shape"], axis=0))
        zero = helper.make_tensor("value", kind, [1], [0])
        nodes.append(helper.make_node("ConstantOfShape", [f"{name}shape"], [name], value=zero))
    told, given = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in part.items()]
        for part in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "graph", told, given, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def _tensors(part: dict[str, tuple[int, list[Any]]]) -> tuple[Any, ...]:
    from mergevq.export.manifest import TensorSpec

    names = {1: "float32", 7: "int64"}
    return tuple(
        TensorSpec(name=name, dtype=names[kind], shape=tuple(shape)) for name, (kind, shape) in part.items()
    )


_IMAGE: dict[str, Any] = {"image": (1, ["batch", 3, 32, 32])}
_INDICES: dict[str, Any] = {"indices": (7, ["batch", "keep"])}
_SOURCE: dict[str, Any] = {"source": (7, ["batch", 64])}
_KEPT: dict[str, Any] = {name: (7, ["batch", 32]) for name in ("indices", "sizes")}
_ENCODER = {
    "encoder_k32.onnx": (
        "encoder",
        32,
        _IMAGE,
        {"indices": _KEPT["indices"], **_SOURCE, "sizes": _KEPT["sizes"]},
    )
}
_DECODER = {
    "decoder.onnx": ("decoder", None, _INDICES | _SOURCE, _IMAGE),
    "recovery.onnx": ("recovery", None, _INDICES, {"logits": (1, ["batch", 64, "keep"])}),
}
"""Role, kept count, inputs and outputs of the graphs of the tiny tokenizer."""


def _make_export(folder: Path) -> None:
    """A folder as `mergevq export onnx` writes it, of graphs that paint black."""
    _write_export(folder / "out", _ENCODER | _DECODER, None)


def _write_export(home: Path, made: dict[str, Any], generator: Any) -> None:
    from mergevq.export.manifest import GraphSpec, Manifest, entry, to_json

    home.mkdir(exist_ok=True)
    specs = []
    for file, (role, keep, inputs, outputs) in made.items():
        _graph(home / file, inputs, outputs)
        specs.append(
            GraphSpec(file=file, role=role, keep=keep, inputs=_tensors(inputs), outputs=_tensors(outputs))
        )
    manifest = Manifest(
        package="0.1.0",
        precision="fp32",
        opset=18,
        tokenizer=tiny_tokenizer().config,
        generator=generator,
        fingerprint="0" * 64,
        axes={"batch": (1, None), "keep": (1, 64), "tokens": (1, None), "past": (1, None)},
        graphs=tuple(specs),
        versions={"torch": "2", "onnx": "1", "onnxscript": "0"},
    )
    manifest = replace(manifest, files={path.name: entry(path) for path in sorted(home.iterdir())})
    values = to_json(manifest)
    (home / "manifest.json").write_text(json.dumps(values, indent=1))
    check = {
        "graph": "decoder.onnx",
        "name": "x",
        "passed": True,
        "worst": "none",
        "value": 0.0,
        "limit": 1.0,
    }
    verdict = {"manifest": values["sha256"], "passed": True, "provider": "cpu", "checks": [check]}
    (home / "verify.json").write_text(json.dumps(verdict))


def _read_export(folder: Path) -> Any:
    import numpy as np

    import mergevq

    home = folder / "out"
    values = json.loads(printed(["export", "inspect", str(home), "--json"]))
    printed(["export", "inspect", str(home)])
    tokenizer: Any = mergevq.load(home, runtime="onnx", threads=1)
    tokens = tokenizer.encode(np.zeros((1, 3, 32, 32), np.float32))
    tokenizer.decode(tokens)
    tokenizer.decode(tokens.indices)
    return {"tokenizer": values["manifest"]["tokenizer"], "axes": values["manifest"]["axes"]}


def _seal_export(folder: Path) -> None:
    """The hashes of the files in the manifest, its own, and the verification's."""
    home = folder / "out"
    try:
        values = json.loads((home / "manifest.json").read_text())
        values.pop("sha256", None)
        for name, entry in values["files"].items():
            content = (home / name).read_bytes()
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (home / "manifest.json").write_text(json.dumps(values))
    _seal_verdict(home, values["sha256"])


def _seal_verdict(home: Path, digest: str) -> None:
    try:
        verdict = json.loads((home / "verify.json").read_text())
        (home / "verify.json").write_text(json.dumps({**verdict, "manifest": digest}))
    except (OSError, ValueError, TypeError, RecursionError):
        pass


def _make_layouts(folder: Path) -> None:
    import numpy as np

    from mergevq.export.generator.layout_file import write_layouts

    home = folder / "out"
    home.mkdir()
    draw = np.random.default_rng(0)
    positions = draw.random((6, 64)) < 0.5
    positions[:, 0] = True
    write_layouts(home, positions, np.arange(6) % 3)
    _write_export(home, _DECODER, tiny_generator("rand_ar").model.config)


def _read_layouts(folder: Path) -> None:
    import mergevq

    mergevq.load(folder / "out", runtime="onnx", threads=1)


def _make_engine(folder: Path) -> None:
    from mergevq.export.engines.ranges import InputProfile
    from mergevq.export.engines.sidecar import Sidecar, sidecar_path
    from mergevq.export.manifest import entry, read_manifest

    _make_export(folder)
    engines = folder / "out" / "engines"
    engines.mkdir()
    (engines / "decoder.engine").write_bytes(b"engine")
    manifest = read_manifest(folder / "out")
    profile = InputProfile(name="indices", values=False, least=(1, 1), usual=(1, 32), most=(4, 64))
    Sidecar(
        graph="decoder.onnx",
        files={"decoder.onnx": manifest.files["decoder.onnx"].sha256},
        flavor="tensorrt",
        version="11.4",
        targets=("8.6",),
        tf32=False,
        profiles=(profile,),
        driver=12,
        file="decoder.engine",
        engine=entry(engines / "decoder.engine"),
    ).write(sidecar_path(engines / "decoder.engine"))


def _read_engine(folder: Path) -> None:
    from mergevq.export.engines.sidecar import read_sidecars

    printed(["export", "inspect", str(folder / "out")])
    printed(["export", "inspect", str(folder / "out"), "--json"])
    read_sidecars(folder / "out" / "engines")


def _seal_engine(folder: Path) -> None:
    """The key of the description: it is made of the values alone."""
    path = folder / "out" / "engines" / "decoder.engine.json"
    try:
        values = json.loads(path.read_text())
        plain = {
            name: value
            for name, value in values.items()
            if name not in ("format", "key", "file", "engine", "seconds")
        }
        values["key"] = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(values))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass


def _make_timings(folder: Path) -> None:
    cases = [
        {
            "group": "encode",
            "fullname": f"bench_encode.py::encode[{column}]",
            "stats": {"q1": 0.1, "median": 0.2, "q3": 0.3, "percentiles": {"p50": 0.2, "p99": 0.3}},
            "extra_info": {
                "row": "tiny-32",
                "column": column,
                "images": 4,
                "ratio": 1.5,
                "contaminated": True,
                "alone_ratio": 1.2,
            },
        }
        for column in ("PyTorch", "ONNX Runtime")
    ]
    machine = {
        "cpu": {"brand_raw": "x"},
        "python_version": "3.11",
        "mergevq": {
            "cores": 2,
            "device": "cpu",
            "torch": "2",
            "load_average": [0.1],
            "versions": {"onnx": "1"},
        },
    }
    for name in ("before", "after"):
        values = {
            "machine_info": machine,
            "benchmarks": cases,
            "datetime": "2026-01-01T00:00:00",
            "skipped": {"a": "b"},
        }
        (folder / f"{name}.json").write_text(json.dumps(values))


def _read_timings(folder: Path) -> None:
    from mergevq.bench import compare, report

    before, after = (report.read(folder / f"{name}.json") for name in ("before", "after"))
    report.markdown(after)
    compare.as_table(before, after)


def _make_reference(folder: Path) -> None:
    import torch

    from mergevq.metrics.features.reference import write_reference
    from mergevq.metrics.features.statistics import FeatureSet

    features = FeatureSet(8)
    features.update(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    write_reference(folder, "key", features)


def _read_reference(folder: Path) -> None:
    from mergevq.metrics.features.frechet import frechet_distance
    from mergevq.metrics.features.reference import read_reference

    found = read_reference(folder, "key")
    if found is not None:
        frechet_distance(found.statistics, found.statistics)


_MANIFEST = (
    Target("out/manifest.json", JSON, 10),
    Target("out/manifest.json", PLACES, 0.4),
    Target("out/verify.json", JSON, 2),
    Target("out/verify.json", PLACES, 0.4),
    Target("out/decoder.onnx", (*BYTES[:5], *PLACES), 0.5),
)
KINDS = {
    "export": Kind(
        make=_make_export,
        targets=_MANIFEST,
        read=_read_export,
        seal=_seal_export,
        check=senseless,
        default=16,
        depends={"onnx": "exports", "onnxruntime": "exports"},
    ),
    "layouts": Kind(
        make=_make_layouts,
        targets=(
            Target("out/layouts.npz", ZIP, 10),
            Target("out/layouts.npz", PLACES),
            Target("out/manifest.json", JSON, 2),
        ),
        read=_read_layouts,
        seal=_seal_export,
        default=12,
        depends={"onnx": "exports", "onnxruntime": "exports"},
    ),
    "engine": Kind(
        make=_make_engine,
        targets=(
            Target("out/engines/decoder.engine.json", JSON, 8),
            Target("out/engines/decoder.engine.json", PLACES),
        ),
        read=_read_engine,
        seal=_seal_engine,
        default=12,
        share=0.5,
        depends={"onnx": "exports"},
    ),
    "timings": Kind(
        make=_make_timings,
        targets=(Target("after.json", JSON, 8), Target("after.json", NAMED)),
        read=_read_timings,
        default=12,
        share=0.5,
    ),
    "reference": Kind(
        make=_make_reference,
        targets=(Target("key.safetensors", SAFETENSORS, 8), Target("key.safetensors", PLACES)),
        read=_read_reference,
        default=12,
        share=0.3,
    ),
}
