"""`mergevq demo`: a small tokenizer of built-in photographs and what it does to unseen crops, then generators."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.cli.demo.generators import TIMED, generators, table
from mergevq.cli.shared import common

if TYPE_CHECKING:
    import torch

    from mergevq.metrics.report import ReconstructionReport
    from mergevq.models.tokenizer.tokenizer import Tokenizer
    from mergevq.training.tokenizer.config import TokenizerRun

KEEPS = (32, 64, 128, 256)
PICTURED = 6
DATA = "builtin:photos"


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "demo",
        help="train a small tokenizer and small generators on built-in photographs, minutes on two CPU cores",
        description="Trains the small-64 tokenizer on crops of the photographs inside scikit-image and "
        "reconstructs crops that it never saw at several kept counts. Then trains a small MergeAR and a small "
        "RandAR on its tokens, each photograph a class, draws samples, and compares what the generators cost. "
        "Writes pictures and a summary. Run again, it shows the result without training anew.",
        epilog="examples:\n  mergevq demo\n  mergevq demo --out runs/demo --device cpu\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=common.path, default=Path("runs/demo"), help="where the results go [%(default)s]"
    )
    parser.add_argument("--device", help="auto, cuda, npu or cpu [auto]")
    parser.add_argument(
        "--steps",
        type=common.positive,
        default=240,
        metavar="N",
        help="training steps of 16 crops [%(default)s]",
    )
    parser.add_argument(
        "--generator-steps",
        type=common.natural,
        default=120,
        metavar="N",
        help="training steps of each generator, of 16 crops; 0 stops after the tokenizer [%(default)s]",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains, evaluates, draws; in a folder that no other demo writes to."""
    from mergevq.storage.locks import only_writer

    with only_writer(args.out, doing="makes the demo there"):
        return _make(args)


def _make(args: argparse.Namespace) -> int:
    from mergevq.backends import select
    from mergevq.metrics.report import as_json, as_table
    from mergevq.models.store import load, write_atomically
    from mergevq.training.tokenizer.run import train_tokenizer

    started = time.perf_counter()
    device = select(args.device)
    folder = train_tokenizer(_config(args.steps), args.out / "tokenizer", device)
    trained = time.perf_counter() - started
    tokenizer = load(folder).to(device.name)
    images = _unseen_crops(tokenizer.config.image_size)
    report = _evaluate(tokenizer, images, device.name)
    pictures = _draw(tokenizer, images, report, args.out, device.name)
    summary: dict[str, Any] = {
        "report": as_json(report),
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
        "pictures": [str(path) for path in pictures],
        "tokenizer": str(folder),
    }
    if not args.json:
        print(f"\n{len(images)} crops that the tokenizer never saw, {args.steps} steps of training:\n")
        print(as_table(report))
        print(f"\n{trained:.0f} s of training, {summary['seconds']['all']:.0f} s in all\n", flush=True)
    if args.generator_steps:
        summary["generators"] = generators(folder, DATA, args.out, device, args.generator_steps)
    write_atomically(
        args.out / "summary.json", lambda path: path.write_text(json.dumps(summary, indent=2) + "\n")
    )
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        _report_generators(summary, args)
    return 0


def _report_generators(summary: dict[str, Any], args: argparse.Namespace) -> None:
    """The generators' costs, and where everything is."""
    paths = [*summary["pictures"], args.out / "summary.json", summary["tokenizer"]]
    if "generators" in summary:
        made = summary["generators"]
        print(f"\nGenerators, {args.generator_steps} steps of training each, in batches of {TIMED}:\n")
        print(table(made["costs"]))
        print(f"\n{made['seconds']['training']:.0f} s of training, {made['seconds']['all']:.0f} s in all\n")
        paths += [*made["pictures"], *made["generators"].values()]
    for path in paths:
        print(f"  {path}")


def _config(steps: int) -> TokenizerRun:
    """A run that fits into minutes on two cores."""
    from mergevq.config import override
    from mergevq.training.tokenizer.recipes import recipe

    return override(
        recipe("small-64"),
        {
            "data.path": DATA,
            "data.workers": 1,
            "train.steps": steps,
            "train.batch_size": 16,
            "train.log_every": 50,
            "train.validate_every": max(steps // 4, 1),
            "train.checkpoint_every": 100,
            "loss.source_end": None,  # so short a run has no time to give any of it up
            "optimizer.rate": 2e-2,
            "optimizer.warmup": min(20, steps),
            "optimizer.ema": 0.99,
        },
    )


def _unseen_crops(size: int) -> torch.Tensor:
    """(B, 3, S, S) uint8: the held-out square of each photograph."""
    import torch

    from mergevq.data.images.decode import to_rgb
    from mergevq.data.images.sources import open_source
    from mergevq.data.images.transforms import center_crop

    source = open_source(DATA, "val")
    return torch.stack([center_crop(to_rgb(source.open(i)), size) for i in range(len(source))])


def _evaluate(tokenizer: Tokenizer, images: torch.Tensor, device: str) -> ReconstructionReport:
    from mergevq.metrics.reconstruction import ReconstructionEvaluator

    evaluator = ReconstructionEvaluator(
        tokenizer,
        keeps=KEEPS,
        code_bits=tokenizer.config.quantizer.bits,
        device=device,
        protocol={"data": f"{DATA}, held-out squares scaled to {images.shape[-1]} px"},
    )
    # In two batches, so that the speed is not that of the first one.
    return evaluator.run(images.chunk(2))


def _draw(
    tokenizer: Tokenizer, images: torch.Tensor, report: ReconstructionReport, out: Path, device: str
) -> list[Path]:
    """Writes the figure and the curve; returns their paths."""
    import torch

    from mergevq.data.images.transforms import to_float, to_uint8
    from mergevq.metrics.report import psnr_curves
    from mergevq.visual import curve, reconstruction_figure, save_picture

    shown = images[:PICTURED]
    with torch.inference_mode():
        tokens = {keep: tokenizer.encode(to_float(shown).to(device), keep) for keep in KEEPS}
        painted = {keep: to_uint8(tokenizer.decode(kept)).cpu() for keep, kept in tokens.items()}
        recovered = {keep: to_uint8(tokenizer.decode(kept.indices)).cpu() for keep, kept in tokens.items()}
    figure = reconstruction_figure(
        shown,
        painted,
        {keep: kept.to("cpu") for keep, kept in tokens.items()},
        recovered=recovered,
        title="Crops that the tokenizer never saw",
    )
    line = curve(
        psnr_curves(report),
        x_label="kept tokens",
        y_label="PSNR in dB",
        title="Quality against kept tokens",
        lines={"mean colour": report.mean_colour_psnr},
    )
    paths = [out / "reconstructions.png", out / "psnr.png"]
    save_picture(figure, paths[0])
    save_picture(line, paths[1])
    return paths
