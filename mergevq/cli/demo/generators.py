"""The demo's second half: tokens, a MergeAR and a RandAR trained on them, samples, and a table of costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.generation.pipeline import ImageGenerator
    from mergevq.generator_config import GeneratorKind

TRAINED: tuple[GeneratorKind, ...] = ("merge_ar", "rand_ar")
SIZE = "nano"
KEEP = 128
VIEWS = 48
SAMPLES = 4
TIMED = 8
RAND_AR_STEPS = 32
GUIDANCE = 2.0


def generators(tokenizer: Path, data: str, out: Path, device: Device, steps: int) -> dict[str, Any]:
    """Trains both kinds on crops of the photographs, each photograph a class, and shows what they make.

    Args:
        tokenizer: the run folder of the first half.
        data: the photographs.
        out: the folder of the demo.
        device: what it runs on.
        steps: training steps of each generator.

    Returns:
        What the summary says: costs by kind, seconds, pictures, folders.
    """
    from mergevq.generation.store import load_generator

    started = time.perf_counter()
    tokens = _tokens(tokenizer, data, out / "tokens", device)
    folders = {kind: _train(kind, tokenizer, tokens, out / kind, device, steps) for kind in TRAINED}
    trained = time.perf_counter() - started
    made = {kind: load_generator(folder).to(device.name) for kind, folder in folders.items()}
    pictures = [_samples(generator, out / f"{kind}.png") for kind, generator in made.items()]
    timed: list[tuple[str, ImageGenerator, int | None]] = [
        ("raster (untrained)", _raster(made["merge_ar"]), None),
        ("merge_ar", made["merge_ar"], None),
        ("rand_ar", made["rand_ar"], None),
        (f"rand_ar, {RAND_AR_STEPS} steps", made["rand_ar"], RAND_AR_STEPS),
    ]
    costs = {name: _cost(generator, device, passes) for name, generator, passes in timed}
    return {
        "costs": costs,
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
        "pictures": [str(path) for path in pictures],
        "generators": {kind: str(folder) for kind, folder in folders.items()},
    }


def table(costs: dict[str, dict[str, float]]) -> str:
    """The costs in columns."""
    lines = [
        f"{'generator':>20} {'ms an image':>12} {'passes':>7} {'cached tokens':>14} {'cache, KiB an image':>20}"
    ]
    for name, cost in costs.items():
        lines.append(
            f"{name:>20} {cost['ms']:12.0f} {cost['passes']:7.0f} {cost['slots']:14.0f} {cost['KiB']:20.0f}"
        )
    return "\n".join(lines)


def _tokens(tokenizer: Path, data: str, folder: Path, device: Device) -> Path:
    """Crops of the photographs as tokens; those that are there from an earlier demo are left alone."""
    from mergevq.data.images.sources import open_source
    from mergevq.data.tokens.extraction import describe, extract
    from mergevq.models.store import load

    source = open_source(data, "train")
    model = load(tokenizer).to(device.name)
    meta = describe(model, source, "train", counts=[KEEP], views=VIEWS)
    extract(model, source, folder, meta)
    return folder


def _train(kind: GeneratorKind, tokenizer: Path, tokens: Path, out: Path, device: Device, steps: int) -> Path:
    from mergevq.config import override
    from mergevq.data.tokens.meta import read_meta
    from mergevq.generator_config import generator_config
    from mergevq.models.store import load
    from mergevq.training.generator.recipes import generator_recipe
    from mergevq.training.generator.run import train_generator

    meta = read_meta(tokens)
    model = generator_config(SIZE, kind, load(tokenizer).config, counts=meta.counts, classes=meta.classes)
    changes = {
        "data.tokenizer": str(tokenizer),
        "data.path": str(tokens),
        "data.holdout": 0.1,
        "optimizer.rate": 3e-2,
        "optimizer.warmup": min(20, steps),
        "optimizer.ema": 0.98,
        "train.steps": steps,
        "train.batch_size": 16,
        "train.validate_every": steps,
        "train.samples": 0,
    }
    return train_generator(override(generator_recipe(model), changes), out, device)


def _samples(generator: ImageGenerator, path: Path) -> Path:
    """A picture with a row a class."""
    from mergevq.data.images.transforms import to_uint8
    from mergevq.visual import grid, save_picture

    classes = generator.model.config.classes
    labels = [label for label in range(classes) for _ in range(SAMPLES)]
    images = to_uint8(generator.generate(labels, guidance=GUIDANCE)).cpu()
    rows = [list(row) for row in images.split(SAMPLES)]
    title = f"{generator.kind}: samples of each class, guidance {GUIDANCE:g}"
    save_picture(grid(rows, labels=[f"class {label}" for label in range(classes)], title=title), path)
    return path


def _raster(trained: ImageGenerator) -> ImageGenerator:
    """A generator of the same size in LlamaGen's order, with random weights: only its costs are of interest."""
    from mergevq.generation.store import create_generator

    config = trained.model.config
    return create_generator(
        config.name, "raster", trained.tokenizer, counts=config.counts, classes=config.classes
    )


def _cost(generator: ImageGenerator, device: Device, steps: int | None = None) -> dict[str, float]:
    """Time and cache of an image in a batch, without guidance and without painting it."""
    labels = [number % generator.model.config.classes for number in range(TIMED)]
    keep = KEEP if generator.kind == "rand_ar" else None
    started = time.perf_counter()
    parts = list(generator.generate_tokens(generator.request(labels, keep=keep), steps))
    device.synchronize()
    seconds = time.perf_counter() - started
    return {
        "ms": round(1000 * seconds / TIMED, 1),
        "passes": parts[0].cache.passes,
        "slots": max(part.cache.slots for part in parts),
        "KiB": round(sum(part.cache.bytes for part in parts) / TIMED / 2**10, 1),
    }
