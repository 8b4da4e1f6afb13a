"""`mergevq export onnx`: a checkpoint to a folder of verified graphs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common

if TYPE_CHECKING:
    from mergevq.export import ExportReport


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq export`."""
    parser = kinds.add_parser(
        "onnx",
        help="a checkpoint to a folder of verified graphs",
        description="Writes a tokenizer (encoders, decoder, source recovery) or a generator (prefill, step, heads, "
        "and its tokenizer's decoder and source recovery) as ONNX graphs with a manifest.json, and compares them "
        "with the model: the saved files, and what they compute on photographs, noise and flat pictures in "
        "batches of 1, 3 and 8. Where a check fails nothing is left behind, and the exit code is 1.",
        epilog="examples:\n"
        "  mergevq export onnx --checkpoint runs/tok --out deployed\n"
        "  mergevq export onnx --checkpoint runs/tok --out deployed --keep 36,144 --precision fp16\n"
        "  mergevq export onnx --checkpoint runs/tok --out for-a-cpu --winograd\n"
        "  mergevq export onnx --checkpoint runs/gen --out deployed-generator --json\n",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="C",
        help="a run folder, a folder of mergevq.save, a training checkpoint, or hf://user/name",
    )
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="DIR", help="the folder of the graphs"
    )
    keeps = parser.add_mutually_exclusive_group()
    keeps.add_argument(
        "--keep", type=common.counts, metavar="K,K,...", help="kept counts, an encoder each [the preset's]"
    )
    keeps.add_argument(
        "--dynamic-keep", action="store_true", help="one encoder for any kept count instead of one each"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="inside the graphs, int8 for generators alone; what goes in and out is float32 in any [%(default)s]",
    )
    parser.add_argument(
        "--winograd",
        action="store_true",
        help="3x3 convolutions of many channels with fewer multiplications: faster on CPUs, and not for engines",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Exports and verifies."""
    from mergevq.export import export_onnx

    common.check_writable(options.out.parent, folder=True)
    report = export_onnx(
        options.checkpoint,
        options.out,
        keep=options.keep,
        dynamic_keep=options.dynamic_keep,
        precision=options.precision,
        winograd=options.winograd,
    )
    print(_as_json(report) if options.json else _as_text(report))
    return 0


def _as_json(report: ExportReport) -> str:
    files = {name: entry.bytes for name, entry in report.manifest.files.items()}
    summary = {
        "out": str(report.folder),
        "kind": report.manifest.kind,
        "precision": report.manifest.precision,
        "winograd": report.manifest.winograd,
        "files": files,
        "seconds": round(report.seconds, 3),
        "verification": report.verification.to_json(),
    }
    return json.dumps(summary, indent=2)


def _as_text(report: ExportReport) -> str:
    from mergevq.export.checking.report import as_table

    size = sum(entry.bytes for entry in report.manifest.files.values()) / 2**20
    measured = [check for check in report.verification.checks if check.value is not None]
    return (
        f"{as_table(measured)}\n"
        f"{len(report.manifest.graphs)} graphs ({size:.1f} MiB, {report.manifest.arithmetic}) in "
        f"{report.seconds:.0f} s, all {len(report.verification.checks)} checks passed: {report.folder}"
    )
