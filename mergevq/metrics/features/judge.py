"""The network that generated pictures are judged by: its features and its class logits.

`inception` or the folder of a classifier in, a `JudgingNetwork` out. It carries the names that numbers over
it may have: FID and IS with the InceptionV3 weights that those are defined with, "Frechet distance (...)"
and "class score (...)" with any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mergevq.metrics.features.classifier import load_classifier
from mergevq.metrics.features.networks import load_inception
from mergevq.storage.files import expanded


@dataclass(frozen=True, slots=True)
class JudgingNetwork:
    """A named map from pictures to features and class logits."""

    name: str
    """Network and weights, as the protocol of a result prints them."""
    frechet: str
    """What the Frechet distance over its features may be called."""
    score: str
    """What the class score over its logits may be called."""
    digest: str
    """SHA-256 of its weights."""
    classes: tuple[str, ...]
    """The data's classes in the order of the logits; none where the network has classes of its own."""
    extract: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    """(B, 3, H, W) uint8 to (B, F) and (B, C) float, resizing included."""

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, F) features and (B, C) logits of (B, 3, H, W) uint8 pictures."""
        with torch.inference_mode():
            features, logits = self.extract(images)
        return features, logits


def load_judge(specification: str, device: torch.device | str = "cpu") -> JudgingNetwork:
    """The network that a command-line value names.

    Args:
        specification: `inception`, `inception=FILE`, or the folder of a trained classifier.
        device: where the network runs; pictures have to be there too.

    Raises:
        UsageError: InceptionV3's package or file is missing.
        CheckpointError: the file does not hold InceptionV3's weights, or the folder no classifier.
    """
    network, _, file = specification.partition("=")
    if network == "inception":
        return inception_judge(expanded(file) if file else None, device)
    return classifier_judge(expanded(specification), device)


def inception_judge(weights: Path | None = None, device: torch.device | str = "cpu") -> JudgingNetwork:
    """The network of FID and IS: 2048 features, and the logits without bias that IS is defined with.

    Args:
        weights: torch-fidelity's file; None looks for it in torch.hub's checkpoints folder.
        device: where the network runs.

    Raises:
        UsageError: the package or the file is missing; the message says how to get it.
        CheckpointError: the file does not hold this network's weights.
    """
    loaded = load_inception(weights, ["2048", "logits_unbiased"], device)
    return JudgingNetwork(
        name=loaded.name,
        frechet=f"Frechet distance ({loaded.other})" if loaded.other else "FID",
        score=f"class score ({loaded.other})" if loaded.other else "IS",
        digest=loaded.digest,
        classes=(),
        extract=loaded.network,
    )


def classifier_judge(folder: Path, device: torch.device | str = "cpu") -> JudgingNetwork:
    """A classifier that was trained on the data: 128 features and its classes.

    Args:
        folder: where `mergevq train classifier` put it.
        device: where the network runs.

    Raises:
        CheckpointError: there is no whole classifier.
    """
    classifier = load_classifier(folder, device)
    return JudgingNetwork(
        name=classifier.name,
        frechet=f"Frechet distance ({classifier.label})",
        score=f"class score ({classifier.label})",
        digest=classifier.digest,
        classes=classifier.card.classes,
        extract=classifier,
    )
