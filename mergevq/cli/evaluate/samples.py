"""The generated pictures that `mergevq evaluate generation` looks at: made now, or read from a folder.

Options in, uint8 batches with the classes asked for out, and the lines that the protocol says of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from tqdm import tqdm

from mergevq.cli.evaluate.picture_batches import PictureBatches
from mergevq.cli.shared import common, sampling
from mergevq.data.images.transforms import to_uint8
from mergevq.data.listing.layout import FLAT
from mergevq.errors import NonFiniteError
from mergevq.generation.sampling import Sampling
from mergevq.generation.store import load_generator
from mergevq.models.checkpoint_path import WEIGHTS, checkpoint_path
from mergevq.storage.files import sha256

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.data.images.dataset import Failure

NUMBER = 1000
"""Pictures generated unless the command line names another number."""


class SampleBatch(NamedTuple):
    """Some generated pictures.

    Attributes:
        images: (B, 3, S, S) uint8.
        labels: (B,) classes asked for, by the judging network's numbers, or None.
        seconds: what generating them took, or None.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    seconds: float | None


class Samples(Protocol):
    """Generated pictures in batches.

    Attributes:
        expected: how many there will be.
        size: S.
        protocol: what is to be said of them.
        failures: pictures that could not be read so far.
    """

    expected: int
    size: int
    protocol: dict[str, str]
    failures: list[Failure]

    def __iter__(self) -> Iterator[SampleBatch]: ...


class GeneratedSamples:
    """Pictures of a generator, its classes in turn.

    Args:
        options: the command line: generator, number, classes, batch size, sampling settings.
        known: the judging network's classes; none where it has classes of its own.
        device: where to generate.

    Raises:
        UsageError: a class does not exist.
        CheckpointError: the folder holds no whole generator.
    """

    def __init__(self, options: argparse.Namespace, known: Sequence[str], device: Device) -> None:
        self.generator = load_generator(options.generator).to(device.name)
        self.failures: list[Failure] = []
        self.device = device
        self.batch_size = options.batch_size
        self.settings = sampling.settings(options)
        self._check()
        self.expected = NUMBER if options.number is None else options.number
        self.size = self.generator.tokenizer.config.image_size
        config = self.generator.model.config
        wanted = sampling.wanted_classes(options, config.classes)
        self.labels = torch.tensor(wanted).repeat(-(-self.expected // len(wanted)))[: self.expected]
        self.judged = bool(known) and len(known) == config.classes
        self.protocol = {
            "generator": f"{options.generator} ({config.name}, {config.kind}, "
            f"weights {sha256(checkpoint_path(options.generator) / WEIGHTS)[:12]})",
            "sampling": _described(self.settings),
            "classes": (
                f"all {config.classes} in turn" if len(wanted) == config.classes else _listed(wanted)
            ),
            "rounding": "generated pictures rounded to the nearest of 256 levels and clamped",
            "time": f"generate() in batches of {self.batch_size} on {device.name}, "
            "without the first of several batches",
        }
        if known:
            self.protocol["class numbers"] = (
                "class i of the generator is class i of the network"
                if self.judged
                else f"the generator has {config.classes} classes, the network {len(known)}: no class consistency"
            )

    def _check(self) -> None:
        """Refuses now what would be refused after the real pictures have been read."""
        asked = dict(self.settings)
        self.generator.check_steps(asked.pop("steps"))
        limits = {name: asked.pop(name) for name in ("temperature", "top_k", "top_p")}
        self.generator.request([0], sampling=Sampling(**limits), **asked)

    def __iter__(self) -> Iterator[SampleBatch]:
        numbers = torch.arange(len(self.labels)) // len(self.labels.unique())  # of a picture in its class
        settings = {name: value for name, value in self.settings.items() if name != "seed"}
        batches = zip(self.labels.split(self.batch_size), numbers.split(self.batch_size), strict=True)
        total = -(-self.expected // self.batch_size)
        for labels, places in tqdm(
            batches, total=total, unit="batch", desc="generate", disable=not common.on_terminal()
        ):
            seeds = [
                sampling.picture_seed(self.settings["seed"], label, number)
                for label, number in zip(labels.tolist(), places.tolist(), strict=True)
            ]
            start = time.perf_counter()
            images = self.generator.generate(labels, seed=seeds, **settings)
            self.device.synchronize()
            seconds = time.perf_counter() - start
            if not bool(torch.isfinite(images).all()):
                raise NonFiniteError("generated pictures hold NaN or infinity; check the weights")
            yield SampleBatch(to_uint8(images), labels if self.judged else None, seconds)


class StoredSamples:
    """Pictures in a folder, their class the sub-folder that they lie in.

    Args:
        options: the command line: images, number, batch size, size, workers.
        known: the judging network's classes; none where it has classes of its own.
    """

    def __init__(self, options: argparse.Namespace, known: Sequence[str]) -> None:
        self.pictures = PictureBatches(
            options.images,
            "all",
            options.size or 0,
            options.batch_size,
            options.number,
            options.workers,
            common.limits(options),
        )
        self.expected = len(self.pictures.indices)
        self.size = self.pictures.size
        self.failures = self.pictures.failures
        folders = self.pictures.source.classes
        self._numbers, meaning = class_numbers(folders, known)
        self.protocol = {
            "generated": f"{options.images}, as the files are"
            + (f", {options.number} at the most, evenly spaced" if options.number else ""),
        }
        if known:
            self.protocol["class numbers"] = meaning

    def __iter__(self) -> Iterator[SampleBatch]:
        numbers = None if self._numbers is None else torch.tensor(self._numbers)
        for batch in self.pictures:
            yield SampleBatch(batch.images, None if numbers is None else numbers[batch.labels], None)


def class_numbers(folders: Sequence[str], known: Sequence[str]) -> tuple[list[int] | None, str]:
    """The class of each sub-folder, and in words how it was found.

    Folders are called as the classes are, or else, as by `mergevq generate`, by the numbers of classes.
    """
    if all(folder in known for folder in folders):
        return [list(known).index(folder) for folder in folders], "sub-folders have the names of classes"
    if all(folder.isdecimal() and int(folder) < len(known) for folder in folders):
        return [int(folder) for folder in folders], "sub-folders have the numbers of classes"
    if folders == [FLAT]:
        return None, "no sub-folders: no class consistency"
    strange = [folder for folder in folders if folder not in known]
    return None, f"the network has no class {_listed(strange[:3])}: no class consistency"


def _described(settings: dict[str, Any]) -> str:
    named = {
        name: "the generator's own" if value is None else "off" if (name, value) in _OFF else str(value)
        for name, value in settings.items()
    }
    named["seed"] = f"{settings['seed']} (those of mergevq generate for each class and number)"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())


_OFF = {("guidance", 1.0), ("top_k", 0), ("top_p", 1.0)}


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
