"""`mergevq export`: the kinds, one module each."""

from __future__ import annotations

from typing import Any

from mergevq.cli.export import engine, inspect, onnx, verify

KINDS = (onnx, engine, verify, inspect)
"""In the order in which they come."""


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "export",
        help="a model as graphs that run without PyTorch",
        description="Makes a folder of ONNX graphs from a checkpoint, builds TensorRT engines of one, verifies one, or "
        "shows what is in one.",
        epilog="examples:\n"
        "  mergevq export onnx --checkpoint runs/tok --out deployed --keep 36,144\n"
        "  mergevq export engine deployed\n"
        "  mergevq export verify deployed --checkpoint runs/tok\n"
        "  mergevq export inspect deployed\n",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True, title="kinds")
    for kind in KINDS:
        kind.register(kinds)
