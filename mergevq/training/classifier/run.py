"""Training of the classifier that generated pictures are judged by: a few passes, in memory, start to end.

A data set with classes in, a folder with a classifier and its accuracy out. Pictures are decoded once and kept
as uint8 at the network's size; a batch is flipped and shifted there. SGD with Nesterov momentum and one cycle
of the learning rate reach most of what this network can do within ten passes over 50,000 pictures. Nothing is
written before the end, so a killed run leaves what was there before.

Legend: B batch, N pictures, S pixels a side.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F

from mergevq.backends import Device
from mergevq.data.images.dataset import Batch
from mergevq.data.images.failures import FailureLog
from mergevq.data.images.formats.limits import DEFAULT_LIMITS, Limits
from mergevq.data.images.loader import DataConfig, eval_loader
from mergevq.data.images.sources import open_source
from mergevq.data.images.transforms import to_float
from mergevq.data.listing.layout import FLAT
from mergevq.data.listing.splits import Split
from mergevq.errors import DataError, NonFiniteError
from mergevq.metrics.features.classifier import Classifier, ClassifierCard, Side, save_classifier
from mergevq.ranges import Range, Seed, Workers, check_numbers
from mergevq.storage.files import expanded
from mergevq.storage.locks import only_writer
from mergevq.training.engine.processes.termination import ended_at_once

logger = logging.getLogger(__name__)

_SPLITS: tuple[Split, ...] = ("train", "val")

SHIFT = 1 / 8
"""Share of its side that a training picture is shifted by at the most, in every direction: 4 of 32 px."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRun:
    """Everything that decides a training run."""

    data: str
    """Image folder, tar shards or builtin:NAME; the folders of the pictures are the classes."""
    epochs: Annotated[int, Range(1, 10**6)] = 8
    """Passes over the training pictures."""
    size: Side = 32
    """S."""
    seed: Seed = 0
    """Of initialisation, order and augmentation."""
    batch_size: Annotated[int, Range(1, 2**20)] = 128
    """Pictures a step."""
    rate: Annotated[float, Range(0, 100, ends="(]")] = 0.1
    """Peak learning rate, at a third of the run."""
    momentum: Annotated[float, Range(0, 1, ends="()")] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Range(0, 100)] = 5e-4
    """Of all weights."""
    workers: Workers = 2
    """Processes that read pictures."""
    limits: Limits = DEFAULT_LIMITS
    """How large a picture may be."""

    def __post_init__(self) -> None:
        check_numbers(self, "")


class Pictures(NamedTuple):
    """Decoded pictures.

    Attributes:
        images: (N, 3, S, S) uint8.
        labels: (N,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor


ProgressFn = Callable[[Iterator[torch.Tensor], int], Iterator[torch.Tensor]]
"""Wraps the batches of a pass, whose number is the second argument, to show how far it is."""


def train_classifier(
    run: ClassifierRun, folder: Path, device: Device, progress: ProgressFn = lambda batches, count: batches
) -> ClassifierCard:
    """Trains, measures and saves a classifier.

    Args:
        run: the settings.
        folder: where it goes.
        device: where it is trained.
        progress: shows how far a pass is.

    Returns:
        What was saved beside the weights.

    Raises:
        DataError: the data has a single class, or pictures of it cannot be read.
        NonFiniteError: the loss became infinite or NaN.
        OutputError: the folder cannot be written.
        UsageError: another process is training one in the folder.
        StoppedError: a signal ended the run.
    """
    unsaved = "a classifier is written at its end, so nothing was saved, and the same command begins again"
    with only_writer(folder, doing="trains there"), ended_at_once(unsaved):
        return _train(run, folder, device, progress)


def _train(run: ClassifierRun, folder: Path, device: Device, progress: ProgressFn) -> ClassifierCard:
    classes = _classes(run.data)
    training, test = (read_pictures(run, split) for split in _SPLITS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = Classifier(len(classes))
    network.to(device.name)
    if device.channels_last():
        network.to(memory_format=torch.channels_last)
    _fit(network, training, run, progress)
    card = ClassifierCard(
        data=expanded(run.data).resolve().name.removesuffix(".tar"),
        classes=tuple(classes),
        size=run.size,
        train_images=len(training.labels),
        test_images=len(test.labels),
        accuracy=accuracy(network, test, run.batch_size),
        epochs=run.epochs,
        seed=run.seed,
    )
    save_classifier(network, card, folder)
    return card


def _classes(data: str) -> list[str]:
    """The classes of a data set that a classifier can be trained on and measured with."""
    training, validation = (open_source(data, split) for split in _SPLITS)
    classes = training.classes
    if len(classes) < 2:
        raise DataError(f"{data} has one class; a classifier needs two or more, each in a folder of its own")
    if classes[-1] == FLAT:
        none = len(classes) - 1
        without = [row for row in range(len(validation)) if validation.label(row) == none]
        if without and none not in map(training.label, range(len(training))):
            raise DataError(
                f"{len(without)} validation pictures of {data} have no class, first {validation.name(without[0])}; "
                "put them into folders of training's classes, or give the training pictures alone"
            )
    return classes


def read_pictures(run: ClassifierRun, split: Split) -> Pictures:
    """Every picture of a split at the run's size.

    Raises:
        DataError: more than a hundred pictures cannot be read, or none can.
    """
    config = DataConfig(
        path=run.data,
        workers=run.workers,
        max_pixels=run.limits.max_pixels,
        max_aspect=run.limits.max_aspect,
    )
    failures = FailureLog(config.max_failures)
    images, labels = [], []
    batch: Batch
    for batch in eval_loader(config, size=run.size, batch_size=256, split=split, option="--workers"):
        failures.update(batch.failures)
        if len(batch.images):
            images.append(batch.images)
            labels.append(batch.labels)
    if not images:
        raise DataError(f"no picture of {run.data}, split {split}, can be read")
    return Pictures(torch.cat(images), torch.cat(labels))


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture shifted, its mirrored edge filling the gap, and mirrored half of the time.

    Args:
        images: (B, 3, S, S) float.
        generator: the source of the randomness, on the CPU.

    Returns:
        (B, 3, S, S).
    """
    count, _, size, _ = images.shape
    shift = round(SHIFT * size)
    padded = F.pad(images, [shift] * 4, mode="reflect")  # (B, 3, S + 2 shift, S + 2 shift)
    top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    flip = torch.rand(count, 1, generator=generator) < 0.5
    rows = (top + torch.arange(size)).to(images.device)  # (B, S)
    columns = left + torch.arange(size)
    columns = torch.where(flip, columns.flip(1), columns).to(images.device)  # (B, S)
    picture = torch.arange(count, device=images.device)[:, None, None]
    return padded[picture, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(network: Classifier, pictures: Pictures, batch_size: int) -> float:
    """The share of the pictures whose class the network finds."""
    network.eval()
    device = network.head.weight.device
    right = 0
    for images, labels in zip(
        pictures.images.split(batch_size), pictures.labels.split(batch_size), strict=True
    ):
        found = network(to_float(images.to(device)))[1].argmax(1)
        right += int((found.cpu() == labels).sum())
    return right / len(pictures.labels)


def _fit(network: Classifier, pictures: Pictures, run: ClassifierRun, progress: ProgressFn) -> None:
    generator = torch.Generator().manual_seed(run.seed)
    optimizer = torch.optim.SGD(
        network.parameters(), run.rate, run.momentum, weight_decay=run.weight_decay, nesterov=True
    )
    steps = -(-len(pictures.labels) // run.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, run.rate, total_steps=run.epochs * steps, pct_start=1 / 3
    )
    network.train()
    for epoch in range(run.epochs):
        start = time.perf_counter()
        order = torch.randperm(len(pictures.labels), generator=generator)
        losses = []
        for rows in progress(iter(order.split(run.batch_size)), steps):
            losses.append(_step(network, optimizer, pictures, rows, generator))
            schedule.step()
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise NonFiniteError(f"the classifier's loss became {loss}; nothing was saved")
        seconds = time.perf_counter() - start
        logger.info("epoch %d of %d: loss %.4f, %.1f s", epoch + 1, run.epochs, loss, seconds)


def _step(
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    pictures: Pictures,
    rows: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """One step on the pictures of some rows; returns the loss."""
    device = network.head.weight.device
    images = augmented(to_float(pictures.images[rows].to(device)), generator)
    loss = F.cross_entropy(network(images)[1], pictures.labels[rows].to(device))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()
