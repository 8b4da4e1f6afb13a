"""`mergevq evaluate generation`: how generated pictures compare with real ones, and by which protocol."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common, sampling
from mergevq.errors import DataError, UsageError

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.cli.evaluate.picture_batches import PictureBatches
    from mergevq.cli.evaluate.samples import Samples
    from mergevq.data.listing.splits import Split
    from mergevq.metrics.features.judge import JudgingNetwork
    from mergevq.metrics.features.statistics import FeatureSet

logger = logging.getLogger(__name__)


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq evaluate`."""
    parser = kinds.add_parser(
        "generation",
        help="Frechet distance, class score, precision and recall, class consistency",
        description="Compares pictures that a generator makes, or that lie in a folder, with real ones. With "
        "InceptionV3 the numbers are FID and IS; a classifier trained on the data gives numbers that carry its "
        "name, and the share of the pictures that show the class asked for. The features of the real pictures "
        "are remembered by the content of their files. A picture that cannot be read is named and left out; "
        "the exit code is then 1.",
        epilog="examples:\n"
        "  mergevq evaluate generation --generator runs/gen --reference cifar10.tar --network runs/classifier\n"
        "  mergevq evaluate generation --generator runs/gen --reference imagenet/ --network inception \\\n"
        "      --number 50000 --guidance 2 --top-k 400 --json result.json\n"
        "  mergevq evaluate generation --images samples/ --reference photos/ --network runs/classifier\n",
    )
    _add_sources(parser)
    sampling.add_sampling(parser, "with --generator")
    parser.add_argument(
        "--network",
        required=True,
        metavar="SPEC",
        help="inception, inception=FILE, or the folder of mergevq train classifier",
    )
    parser.add_argument(
        "--cache",
        type=common.path,
        metavar="DIR",
        help="where the features of real pictures are remembered [the user's cache folder]",
    )
    parser.add_argument(
        "--json", type=common.path, metavar="FILE", help="write numbers and protocol there as well"
    )
    common.add_device(parser)
    parser.set_defaults(run=run)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """What is compared with what."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--generator", metavar="G", help="a generator's run folder, or one of mergevq.save")
    source.add_argument("--images", metavar="FOLDER", help="generated pictures, in a sub-folder a class")
    parser.add_argument(
        "--reference", required=True, metavar="PATH", help="real pictures: folder, tar shards, builtin:NAME"
    )
    parser.add_argument(
        "--split",
        choices=("test", "val", "train", "all"),
        default="test",
        help="which real pictures; test and val are both those held out [%(default)s]",
    )
    parser.add_argument(
        "--limit", type=common.positive, metavar="N", help="at most N real pictures, evenly spaced [all]"
    )
    parser.add_argument(
        "--number",
        type=common.positive,
        metavar="N",
        help="generate N pictures [1000]; of --images at most N, evenly spaced [all]",
    )
    parser.add_argument(
        "--size",
        type=common.side,
        metavar="S",
        help="with --images: short side resized to S px, middle cut out [that of the first picture]; "
        "real pictures are made to fit",
    )
    common.add_batch_size(parser)
    common.add_limits(parser)
    parser.add_argument(
        "--workers",
        type=common.processes,
        default=2,
        metavar="N",
        help="processes that read pictures [%(default)s]",
    )


def run(options: argparse.Namespace) -> int:
    """Measures, prints, writes."""
    from mergevq.backends import select
    from mergevq.cli.evaluate.picture_batches import PictureBatches
    from mergevq.metrics.features.judge import load_judge
    from mergevq.metrics.generation import GenerationEvaluator, as_json, as_table
    from mergevq.models.store import write_atomically

    if options.json is not None:
        common.check_writable(options.json)
    device = select(options.device)
    judge = load_judge(options.network, device.name)
    samples = _samples(options, judge, device)
    split: Split = "val" if options.split == "test" else options.split
    real = PictureBatches(
        options.reference,
        split,
        samples.size,
        options.batch_size,
        options.limit,
        options.workers,
        common.limits(options),
    )
    reference = _reference(real, judge, device.name, options.cache)
    evaluator = GenerationEvaluator(
        judge,
        reference,
        expected=samples.expected,
        protocol={
            **samples.protocol,
            "reference": f"{options.reference}, split {options.split}"
            + (f", {options.limit} at the most, evenly spaced" if options.limit else ""),
            "crop": f"short side to {samples.size} px (bicubic), middle {samples.size} x {samples.size}",
        },
    )
    for batch in samples:
        evaluator.update(batch.images.to(device.name), batch.labels, batch.seconds)
    report = evaluator.compute()
    left_out = _left_out(real, samples)
    if left_out:
        report = dataclasses.replace(report, protocol={**report.protocol, "left out": left_out})
    if options.json is not None:
        text = json.dumps(as_json(report), indent=2) + "\n"
        write_atomically(options.json, lambda path: path.write_text(text))
    print(as_table(report))
    if left_out:
        raise DataError(f"{left_out}; the numbers are those of the others")
    return 0


def _samples(options: argparse.Namespace, judge: JudgingNetwork, device: Device) -> Samples:
    from mergevq.cli.evaluate.samples import GeneratedSamples, StoredSamples

    given = sampling.given(options)
    if options.images is not None and given:
        raise UsageError(f"{given[0]} is for --generator; --images are there already")
    if options.images is not None:
        return StoredSamples(options, judge.classes)
    if options.size is not None:
        raise UsageError("--size is for --images; a generator's pictures have the size of its tokenizer")
    return GeneratedSamples(options, judge.classes, device)


def _reference(real: PictureBatches, judge: JudgingNetwork, device: str, cache: Path | None) -> FeatureSet:
    """The features of the real pictures, remembered or made now."""
    from mergevq.metrics.features.reference import (
        default_cache,
        read_reference,
        reference_key,
        write_reference,
    )
    from mergevq.metrics.features.statistics import FeatureSet

    folder = cache if cache is not None else default_cache()
    key = reference_key(real.source, real.indices, size=real.size, network=judge.digest)
    remembered = read_reference(folder, key)
    if remembered is not None:
        return remembered
    features = FeatureSet(len(real.indices))
    for batch in real:
        features.update(judge(batch.images.to(device))[0])
    if not real.failures:  # they would not be named the next time
        write_reference(folder, key, features)
    return features


def _left_out(real: PictureBatches, samples: Samples) -> str:
    """How many pictures could not be read, in words; nothing where all could."""
    counts = {
        "reference": (len(real.failures), len(real.indices)),
        "generated": (len(samples.failures), samples.expected),
    }
    return " and ".join(
        f"{failed} of {total} {kind} pictures could not be read"
        for kind, (failed, total) in counts.items()
        if failed
    )
