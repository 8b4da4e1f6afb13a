"""`mergevq export verify`: whether graphs still do what their model does."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mergevq.cli.shared import common
from mergevq.errors import UsageError


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq export`."""
    parser = kinds.add_parser(
        "verify",
        help="compare a folder of graphs with its model",
        description="Does the verification of `mergevq export onnx` again, with the ONNX Runtime that is installed "
        "now, and writes verify.json. The exit code is 1 where a check fails.",
        epilog="examples:\n"
        "  mergevq export verify deployed --checkpoint runs/tok\n"
        "  mergevq export verify deployed --checkpoint runs/tok --runtime tensorrt --json\n",
    )
    parser.add_argument("folder", type=common.path, metavar="DIR", help="a folder of graphs")
    parser.add_argument("--checkpoint", required=True, metavar="C", help="what the graphs were exported from")
    parser.add_argument(
        "--runtime",
        choices=("onnx", "tensorrt"),
        default="onnx",
        help="tensorrt verifies the engines of the graphs, on the card that is there [%(default)s]",
    )
    parser.add_argument(
        "--engines",
        type=common.path,
        metavar="DIR",
        help="of `mergevq export engine`, for TensorRT [DIR/engines]",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verifies; prints every check."""
    from mergevq.export import verify
    from mergevq.export.checking.report import as_table

    if options.engines is not None and options.runtime != "tensorrt":
        raise UsageError("--engines is for TensorRT; add --runtime tensorrt")
    report = verify(options.folder, options.checkpoint, runtime=options.runtime, engines=options.engines)
    print(json.dumps(report.to_json(), indent=2) if options.json else as_table(report.checks))
    report.raise_if_failed()
    return 0
