"""`mergevq export engine`: TensorRT engines of a folder of graphs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common

if TYPE_CHECKING:
    from mergevq.export import EngineReport


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq export`."""
    parser = kinds.add_parser(
        "engine",
        help="TensorRT engines of a folder of graphs",
        description="Builds an engine of every graph with TensorRT or TensorRT-RTX, each with a file that says what "
        "it is; one that is there already, of the same graph, version and settings, stays. TensorRT-RTX builds for "
        "cards that need not be there, TensorRT for the one that is. Needs no PyTorch.",
        epilog="examples:\n"
        "  mergevq export engine deployed\n"
        "  mergevq export engine deployed --flavor tensorrt-rtx --target 8.6,8.9,12.0 --batch 1,1,8\n"
        "  mergevq export engine deployed-generator --graphs prefill,step,head --cache 160 --json\n",
    )
    parser.add_argument("folder", type=common.path, metavar="DIR", help="a folder of graphs")
    parser.add_argument(
        "--flavor",
        choices=("auto", "tensorrt", "tensorrt-rtx"),
        default="auto",
        help="auto takes the first that is installed [%(default)s]",
    )
    parser.add_argument(
        "--target",
        type=_names,
        metavar="CC,CC,...",
        help="compute capabilities of the cards, for TensorRT-RTX [all from 8.0 on that it knows]",
    )
    parser.add_argument(
        "--graphs",
        type=_names,
        metavar="ROLE,ROLE,...",
        help="encoder, decoder, recovery, prefill, step, head [all]",
    )
    _add_ranges(parser)
    parser.add_argument(
        "--tf32", action="store_true", help="let float32 products be rounded to ten bits of mantissa"
    )
    parser.add_argument(
        "--out",
        type=common.path,
        metavar="OUT",
        help="the folder of the engines [DIR/engines, where they are looked for]",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def _add_ranges(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch",
        type=_range,
        default=(1, 8, 32),
        metavar="MIN,OPT,MAX",
        help="images at a time: the fewest, the usual number and the most, or one number for all [1,8,32]",
    )
    parser.add_argument(
        "--keep",
        type=_range,
        metavar="MIN,OPT,MAX",
        help="kept tokens, where a graph takes any [all, usually the preset's]",
    )
    parser.add_argument(
        "--cache",
        type=common.positive,
        metavar="N",
        help="the most tokens in a generator's cache [as many as an image can need]",
    )


def run(options: argparse.Namespace) -> int:
    """Builds what is not there."""
    from mergevq.export import Ranges, build_engines

    report = build_engines(
        options.folder,
        flavor=options.flavor,
        targets=options.target,
        ranges=Ranges(batch=options.batch, keep=options.keep, cache=options.cache),
        graphs=options.graphs,
        tf32=options.tf32,
        out=options.out,
    )
    print(json.dumps(_as_dict(report), indent=2) if options.json else _as_text(report))
    return 0


def _as_dict(report: EngineReport) -> dict[str, Any]:
    return {
        "out": str(report.folder),
        "engines": [
            {
                "file": each.file,
                "graph": each.graph,
                "flavor": each.flavor,
                "version": each.version,
                "targets": list(each.targets),
                "key": each.key,
                "bytes": each.engine.bytes if each.engine else 0,
                "built": each.file in report.built,
                "seconds": each.seconds,
            }
            for each in report.engines
        ],
        "seconds": round(report.seconds, 3),
    }


def _as_text(report: EngineReport) -> str:
    lines = []
    for each in report.engines:
        size = (each.engine.bytes if each.engine else 0) / 2**20
        how = f"built in {each.seconds:.1f} s" if each.file in report.built else "was there"
        lines.append(f"{each.file} ({size:.1f} MiB) {how}")
    first = report.engines[0]
    return "\n".join(
        [
            *lines,
            f"{len(lines)} engines by {first.flavor} {first.version} for compute capability "
            f"{', '.join(first.targets)}, {len(report.built)} of them new, in {report.seconds:.0f} s: {report.folder}",
        ]
    )


def _names(text: str) -> list[str]:
    """Names between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _range(text: str) -> tuple[int, int, int]:
    """Three positive integers that do not fall, or one, which then is all three."""
    numbers = [common.positive(part.strip()) for part in text.split(",")]
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    if len(numbers) != 3 or numbers != sorted(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN,OPT,MAX, such as 1,8,32")
    return numbers[0], numbers[1], numbers[2]
