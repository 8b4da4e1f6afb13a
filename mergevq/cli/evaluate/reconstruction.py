"""`mergevq evaluate reconstruction`: how close reconstructions come, with the protocol of every number."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common
from mergevq.errors import DataError, UsageError
from mergevq.storage.files import expanded

if TYPE_CHECKING:
    from mergevq.data.images.dataset import Failure
    from mergevq.metrics.perceptual import PerceptualDistance
    from mergevq.metrics.reconstruction import ReconstructionEvaluator
    from mergevq.metrics.report import ReconstructionReport
    from mergevq.models.tokenizer.tokenizer import Tokenizer


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq evaluate`."""
    parser = kinds.add_parser(
        "reconstruction",
        help="PSNR, SSIM, LPIPS, rFID and codebook use",
        description="Reconstructs pictures (short side resized, middle cut out) at several kept counts from "
        "the true and the recovered source and compares them with the originals. A picture that cannot be "
        "read is named and left out; the exit code is then 1.",
        epilog="examples:\n"
        "  mergevq evaluate reconstruction --checkpoint runs/tok --data builtin:photos --jpeg 14\n"
        "  mergevq evaluate reconstruction --checkpoint runs/tok --data imagenet/ --keep 36,144,256 \\\n"
        "      --features inception=weights.pth --lpips alex=alexnet.pth --json result.json --plot psnr.png\n"
        "  mergevq evaluate reconstruction --checkpoint runs/tok --data flat/ --split all --limit 1000\n",
    )
    common.add_checkpoint(parser)
    _add_data(parser)
    _add_measures(parser)
    parser.add_argument(
        "--json", type=common.path, metavar="FILE", help="write numbers and protocol there as well"
    )
    parser.add_argument(
        "--plot", type=common.picture_path, metavar="FILE.png", help="draw PSNR over kept tokens"
    )
    parser.set_defaults(run=run)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Which pictures, and how they are read."""
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="image folder, tar shards or builtin:NAME"
    )
    parser.add_argument(
        "--split",
        choices=("val", "train", "all"),
        default="val",
        help="which pictures; without named splits val is the 5 %% that training holds out [%(default)s]",
    )
    parser.add_argument(
        "--keep",
        type=common.counts,
        metavar="K,K,...",
        help="kept counts [the preset's K, L and some between]",
    )
    parser.add_argument(
        "--limit", type=common.positive, metavar="N", help="at most N pictures, evenly spaced [all]"
    )
    common.add_size(parser)
    common.add_batch_size(parser)
    common.add_limits(parser)
    parser.add_argument(
        "--workers",
        type=common.processes,
        default=2,
        metavar="N",
        help="processes that read pictures [%(default)s]",
    )


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """What is measured beside PSNR, SSIM and codebook use."""
    parser.add_argument(
        "--lpips",
        metavar="NETWORK=FILE",
        help="LPIPS over alex, vgg or squeeze with torchvision's weights in FILE",
    )
    parser.add_argument(
        "--features",
        metavar="SPEC",
        help="Frechet distance over inception=FILE (rFID), classifier=FOLDER or timm:NAME=FILE (both called "
        "after their network)",
    )
    parser.add_argument(
        "--jpeg",
        type=common.natural,
        default=0,
        metavar="N",
        help="compare with JPEG at equal bits on the first N [%(default)s]",
    )


def run(options: argparse.Namespace) -> int:
    """Measures, prints, writes."""
    from mergevq.metrics.report import as_table

    for path in (options.json, options.plot):
        if path is not None:
            common.check_writable(path)
    tokenizer, device = common.load_tokenizer(options)
    size = common.square_size(tokenizer.config, options.size)
    keeps = options.keep or common.default_keeps(tokenizer.config, size)
    common.check_keeps(tokenizer.config, size, keeps)
    evaluator = _evaluator(options, tokenizer, keeps, size, device.name)
    skipped = _feed(evaluator, options, size)
    report = evaluator.compute()
    left_out = f"{len(skipped)} of {len(skipped) + report.results[0].images} pictures could not be read"
    if skipped:
        report = dataclasses.replace(report, protocol={**report.protocol, "left out": left_out})
    _write(report, options)
    print(as_table(report))
    if skipped:
        raise DataError(f"{left_out}; the numbers are those of the others")
    return 0


def _evaluator(
    options: argparse.Namespace, tokenizer: Tokenizer, keeps: list[int], size: int, device: str
) -> ReconstructionEvaluator:
    from mergevq.metrics.features.networks import load_features
    from mergevq.metrics.reconstruction import ReconstructionEvaluator
    from mergevq.models.store import fingerprint

    weights = fingerprint(tokenizer)[:12]
    return ReconstructionEvaluator(
        tokenizer,
        keeps=keeps,
        code_bits=tokenizer.config.quantizer.bits,
        perceptual=_lpips(options.lpips, device) if options.lpips else None,
        features=load_features(options.features, device) if options.features else None,
        jpeg_images=options.jpeg,
        device=device,
        protocol={
            "tokenizer": f"{options.checkpoint} ({tokenizer.config.name}, weights {weights})",
            "data": f"{options.data}, split {options.split}"
            + (f", {options.limit} at the most, evenly spaced" if options.limit else ""),
            "crop": f"short side to {size} px (bicubic), middle {size} x {size}",
        },
    )


def _lpips(specification: str, device: str) -> PerceptualDistance:
    from mergevq.metrics.perceptual import lpips

    network, equals, file = specification.partition("=")
    if not equals or not file:
        raise UsageError(
            f"--lpips {specification} is not understood; write alex=FILE, vgg=FILE or squeeze=FILE"
        )
    return lpips(network, expanded(file), device)  # type: ignore[arg-type]  # an unknown name is refused there


def _feed(evaluator: ReconstructionEvaluator, options: argparse.Namespace, size: int) -> list[Failure]:
    """Shows every picture to the evaluator; returns those that could not be read."""
    from mergevq.cli.evaluate.picture_batches import PictureBatches

    pictures = PictureBatches(
        options.data,
        options.split,
        size,
        options.batch_size,
        options.limit,
        options.workers,
        common.limits(options),
    )
    for batch in pictures:
        evaluator.update(batch.images)
    return pictures.failures


def _write(report: ReconstructionReport, options: argparse.Namespace) -> None:
    from mergevq.metrics.report import as_json, psnr_curves
    from mergevq.models.store import write_atomically
    from mergevq.visual import curve, save_picture

    if options.json is not None:
        text = json.dumps(as_json(report), indent=2) + "\n"
        write_atomically(options.json, lambda path: path.write_text(text))
    if options.plot is not None:
        figure = curve(
            psnr_curves(report),
            x_label="kept tokens",
            y_label="PSNR in dB",
            lines={"mean colour": report.mean_colour_psnr},
        )
        save_picture(figure, options.plot)
