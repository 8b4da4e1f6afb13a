"""`mergevq generate`: pictures of classes."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common, engines, sampling

if TYPE_CHECKING:
    from PIL import Image

    from mergevq.cli.shared.engines import GeneratorEngine


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "generate",
        help="pictures of classes",
        description="Generates pictures and saves each as OUT/CLASS/NUMBER.png as soon as its batch is done. The "
        "picture of a class, a number and a seed is the same whatever else is generated with it.",
        epilog="examples:\n"
        "  mergevq generate --checkpoint runs/gen --classes 3,7 --number 4 --out samples\n"
        "  mergevq generate --checkpoint runs/gen --classes 3 --guidance 2 --top-k 100 --out samples --grid grid.png\n"
        "  mergevq generate --checkpoint runs/rand --classes 0 --keep 32 --steps 12 --out samples --json\n"
        "  mergevq generate --checkpoint deployed-generator --runtime onnx --classes 3 --out samples\n",
    )
    parser.add_argument(
        "--checkpoint", required=True, metavar="C", help="a generator's run folder, or one of mergevq.save"
    )
    common.add_device(parser)
    engines.add_runtime(parser)
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="DIR", help="the folder for the pictures"
    )
    parser.add_argument(
        "--number", type=common.positive, default=4, metavar="N", help="pictures of each class [%(default)s]"
    )
    parser.add_argument(
        "--grid", type=common.picture_path, metavar="FILE", help="draw them all in one picture, a row a class"
    )
    common.add_batch_size(parser)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the passes of raster and merge_ar first; pays for many pictures",
    )
    sampling.add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Generates and writes."""
    generator = engines.open_generator(options)
    classes = sampling.wanted_classes(options, generator.config.classes)
    common.check_writable(options.out, folder=True)
    if options.grid is not None:
        common.check_writable(options.grid)
    started = time.perf_counter()
    rows: dict[int, list[Image.Image]] = {label: [] for label in classes}
    for label, number, image in _pictures(generator, options, classes):
        _save(image, options.out / str(label) / f"{number:04d}.png")
        if options.grid is not None:
            rows[label].append(image)
    if options.grid is not None:
        _draw(rows, options.grid)
    _report(options, generator, len(classes) * options.number, time.perf_counter() - started)
    return 0


def _pictures(
    generator: GeneratorEngine, options: argparse.Namespace, classes: list[int]
) -> Iterator[tuple[int, int, Image.Image]]:
    """Class, number and picture of each, batch by batch."""
    from tqdm import tqdm

    from mergevq.data.images.pixels import to_picture

    settings = sampling.settings(options)
    seed = settings.pop("seed")
    wanted = [(label, number) for label in classes for number in range(options.number)]
    batches = [
        wanted[start : start + options.batch_size] for start in range(0, len(wanted), options.batch_size)
    ]
    with tqdm(total=len(wanted), unit="img", disable=not common.on_terminal()) as bar:
        for batch in batches:
            seeds = [sampling.picture_seed(seed, label, number) for label, number in batch]
            images = generator.generate([label for label, _ in batch], seed=seeds, **settings)
            for (label, number), image in zip(batch, images, strict=True):
                yield label, number, to_picture(image)
            bar.update(len(batch))


def _save(image: Image.Image, path: Path) -> None:
    from mergevq.visual import save_picture

    path.parent.mkdir(exist_ok=True)
    save_picture(image, path)


def _draw(rows: dict[int, list[Image.Image]], path: Path) -> None:
    from mergevq.visual import grid, save_picture

    save_picture(grid(list(rows.values()), labels=[f"class {label}" for label in rows]), path)


def _report(options: argparse.Namespace, generator: GeneratorEngine, number: int, seconds: float) -> None:
    summary = {
        "out": str(options.out),
        "pictures": number,
        "kind": generator.config.kind,
        "seconds": round(seconds, 3),
        "seconds_per_picture": round(seconds / number, 4),
    }
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print(f"{common.pictures(number)} in {seconds:.1f} s: {options.out}")
