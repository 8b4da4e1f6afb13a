"""A small residual network that is trained on a data set to judge pictures of that data set.

uint8 pictures in, 128 pooled features and class logits out. Where InceptionV3 cannot be had, or knows nothing
of the data, these features carry the Frechet distance and these logits the class of a generated picture; such
numbers compare models that were judged by the same file, and nothing else. A saved classifier states its
data and its accuracy on pictures that it has not seen.

Legend: B batch, S pixels a side, C classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.config import from_dict
from mergevq.data.images.transforms import to_float
from mergevq.errors import CheckpointError, ConfigError, MergeVQError
from mergevq.models.frozen import freeze
from mergevq.models.store import (
    CONFIG,
    WEIGHTS,
    build,
    read_description,
    read_weights,
    write_model,
)
from mergevq.ranges import Range, Share, check_numbers
from mergevq.storage.files import expanded

FORMAT = "mergevq-classifier"
SMALLEST = 8
"""Pixels a side; the network halves a picture three times."""
Side = Annotated[int, Range(SMALLEST, 2**14)]
"""Pixels a side of the pictures that it sees."""
Some = Annotated[int, Range(0, 10**9)]
"""How many there were."""

_STAGES = ((32, 1), (64, 2), (128, 2))
"""Channels and residual blocks at 1/2, 1/4 and 1/8 of the picture's side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierCard:
    """What has to be known of a classifier to read its numbers."""

    data: str
    """The data set that it was trained on."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    size: Side
    """S, pixels a side of the pictures that it sees."""
    train_images: Some
    """Pictures that it was trained on."""
    test_images: Some
    """Pictures that the accuracy was measured on."""
    accuracy: Share
    """Share of the test pictures whose class it finds."""
    epochs: Some
    """Passes over the training pictures."""
    seed: Annotated[int, Range(0, 2**63 - 1)]
    """Of initialisation, order and augmentation."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ConfigError(f"a classifier needs two classes or more, not {len(self.classes)}")
        check_numbers(self, "")


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), Figure 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return F.relu(self.second(F.relu(self.first(images))) + self.shortcut(images))


class Classifier(nn.Module):
    """A residual network of 0.7M parameters on half the picture's resolution and below.

    Args:
        classes: C.
    """

    features = _STAGES[-1][0]

    def __init__(self, classes: int) -> None:
        super().__init__()
        width = _STAGES[0][0]
        self.stem = _convolution(3, width, 4, 2)
        blocks: list[nn.Module] = []
        for stage, (channels, count) in enumerate(_STAGES):
            for place in range(count):
                blocks.append(ResidualBlock(width, channels, 2 if stage and not place else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and logits.

        Args:
            images: (B, 3, S, S) float in [-1, 1].

        Returns:
            (B, 128) pooled activations of the last block, and (B, C).
        """
        features = self.blocks(F.relu(self.stem(images))).mean((2, 3))  # (B, 128)
        return features, self.head(features)


@dataclass(frozen=True, slots=True)
class TrainedClassifier:
    """A classifier from a file, in evaluation mode."""

    network: Classifier
    card: ClassifierCard
    digest: str
    """SHA-256 of the weights file."""

    @property
    def label(self) -> str:
        """What stands in the name of a metric."""
        return f"{self.card.data} classifier"

    @property
    def name(self) -> str:
        """Network, data and accuracy, as the protocol of a result prints them."""
        millions = sum(parameter.numel() for parameter in self.network.parameters()) / 1e6
        return (
            f"{self.label} (residual network, {millions:.2f}M parameters, {self.card.size} px, "
            f"{self.card.accuracy:.2%} of {self.card.test_images} test pictures right, "
            f"weights sha256 {self.digest[:8]})"
        )

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 128) features and (B, C) logits of (B, 3, H, W) uint8 pictures, resized where they need it."""
        size = (self.card.size, self.card.size)
        pictures = to_float(images)
        if images.shape[-2:] != size:
            pictures = F.interpolate(pictures, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        features, logits = self.network(pictures)
        return features, logits


def save_classifier(network: Classifier, card: ClassifierCard, folder: Path) -> None:
    """Writes a classifier to a folder, each file whole or not at all.

    Raises:
        OutputError: it cannot be written; what was there before is unchanged.
    """
    write_model(network, folder, FORMAT, card=dataclasses.asdict(card))


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> TrainedClassifier:
    """The classifier in a folder of `save_classifier`.

    Raises:
        CheckpointError: there is none, or a file is truncated, changed, or not of this kind.
    """
    folder = expanded(folder)
    described = read_description(folder, FORMAT)
    tensors = read_weights(folder, described)
    try:
        card = from_dict(ClassifierCard, described.get("card", {}))
    except (MergeVQError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG} has a card that cannot be used: {error}") from error
    network = build(lambda: Classifier(len(card.classes)), 1, tensors, folder / WEIGHTS)
    return TrainedClassifier(freeze(network).to(device), card, str(described["sha256"]))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution and the normalisation after it."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False), nn.BatchNorm2d(outputs)
    )
