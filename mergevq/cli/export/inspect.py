"""`mergevq export inspect`: what is in a folder of graphs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common

if TYPE_CHECKING:
    from mergevq.export.manifest import GraphSpec, Manifest, TensorSpec


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq export`."""
    parser = kinds.add_parser(
        "inspect",
        help="show what is in a folder of graphs",
        description="Shows the graphs with their inputs and outputs, what they were made from, whether they were "
        "verified, and the engines that were built of them, after a check of every file's hash. Needs neither PyTorch "
        "nor onnx nor TensorRT.",
        epilog="examples:\n  mergevq export inspect deployed\n  mergevq export inspect deployed --json\n",
    )
    parser.add_argument("folder", type=common.path, metavar="DIR", help="a folder of graphs")
    parser.add_argument("--json", action="store_true", help="print manifest and verification as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Checks the hashes, and prints."""
    from mergevq.export.engines.inspection import described_engines
    from mergevq.export.manifest import check_files, read_manifest, read_verification, to_json

    manifest = read_manifest(options.folder)
    check_files(options.folder, manifest)
    verification = read_verification(options.folder)
    engines = described_engines(options.folder, manifest)
    if options.json:
        found = {"manifest": to_json(manifest), "verification": verification, "engines": engines}
        print(json.dumps(found, indent=2))
        return 0
    print(_heading(manifest))
    for graph in manifest.graphs:
        print(_described(manifest, graph))
    print(_verdict(verification))
    for engine in engines:
        print(_engine(engine))
    return 0


def _heading(manifest: Manifest) -> str:
    config = manifest.tokenizer
    name = config.name
    if manifest.generator is not None:
        generator = manifest.generator
        name = f"{generator.name} ({generator.kind}) on {config.name}"
    return (
        f"{manifest.kind} {name}, {config.image_size} px, {config.length} positions, {config.quantizer.bits} bits "
        f"a code, {manifest.arithmetic}, operator set {manifest.opset}\n"
        f"made by mergevq {manifest.package} with "
        + ", ".join(f"{package} {version}" for package, version in manifest.versions.items())
        + f"; tokenizer {manifest.fingerprint[:12]}"
    )


def _described(manifest: Manifest, graph: GraphSpec) -> str:
    from mergevq.export.manifest import files_of

    size = sum(manifest.files[name].bytes for name in files_of(manifest, graph)) / 2**20
    return f"{graph.file} ({size:.1f} MiB)\n    {_tensors(graph.inputs)}\n    -> {_tensors(graph.outputs)}"


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    """Each with its type and axes; of the many keys and values of the layers the first two."""
    shown = [
        f"{each.name} {each.dtype}[{', '.join(map(str, each.shape))}]"
        for each in tensors
        if "." not in each.name or ".0." in each.name
    ]
    left = len(tensors) - len(shown)
    return ", ".join(shown) + (f", and {left} more like the last two" if left else "")


def _verdict(verification: dict[str, Any] | None) -> str:
    if verification is None:
        return "not verified: there is no verify.json of this manifest"
    checks = verification["checks"]
    passed = sum(check["passed"] for check in checks)
    verdict = "passed" if verification["passed"] else "FAILED"
    return f"verification {verdict}: {passed} of {len(checks)} checks, {verification['provider']}"


def _engine(engine: dict[str, Any]) -> str:
    if engine["problem"]:
        return f"{engine['file']} cannot be used: {engine['problem']}"
    size = engine["bytes"] / 2**20
    return (
        f"{engine['file']} ({size:.1f} MiB) by {engine['flavor']} {engine['version']} for compute capability "
        f"{', '.join(engine['targets'])}"
    )
