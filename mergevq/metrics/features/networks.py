"""Networks whose features a Frechet distance is taken over.

A specification such as `inception` or `timm:resnet18=resnet18.safetensors` in, a `FeatureNetwork` out.
Weights are read from local files, never downloaded. Only the InceptionV3 weights that FID is defined with,
recognised by their checksum, give a number called FID; any other network's is a "Frechet distance on ...".
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from mergevq.errors import CheckpointError, UsageError
from mergevq.metrics.features.classifier import load_classifier
from mergevq.models.frozen import freeze
from mergevq.models.pretrained import load_timm_model, read_weights
from mergevq.storage.files import expanded, sha256

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The file of torch-fidelity's release 0.2.0: TensorFlow's InceptionV3 of 2015, converted."""

_INCEPTION_DIGEST = "6726825d"
_GET_INCEPTION = (
    f"take {INCEPTION_FILE} from the releases of github.com/toshas/torch-fidelity and pass inception=FILE, "
    "or put it into the checkpoints folder of torch.hub"
)


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """A named map from pictures to features."""

    name: str
    """Network and weights, as the protocol of a result prints them."""
    metric: str
    """What the Frechet distance over these features may be called."""
    extract: Callable[[torch.Tensor], torch.Tensor]
    """(B, 3, H, W) uint8 to (B, F) float, resizing included."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, F) features of (B, 3, H, W) uint8 pictures."""
        with torch.inference_mode():
            return self.extract(images)


@dataclass(frozen=True, slots=True)
class Inception:
    """torch-fidelity's InceptionV3 with weights from a file."""

    network: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    """(B, 3, H, W) uint8 to one tensor an output, resizing included."""
    name: str
    """Network and weights, as the protocol of a result prints them."""
    other: str | None
    """What it has to be called where its weights are not those of FID; None where they are."""
    digest: str
    """SHA-256 of the weights file."""


def load_features(specification: str, device: torch.device | str = "cpu") -> FeatureNetwork:
    """The network that a command-line value names.

    Args:
        specification: `inception`, `inception=FILE`, `classifier=FOLDER` or `timm:NAME=FILE`.
        device: where the network runs; pictures have to be there too.

    Raises:
        UsageError: the specification, the network's name, its package or its file cannot be used.
        CheckpointError: the file does not hold this network's weights.
    """
    network, _, file = specification.partition("=")
    if network == "inception":
        return inception(expanded(file) if file else None, device)
    if network == "classifier" and file:
        classifier = load_classifier(expanded(file), device)
        metric = f"Frechet distance on {classifier.label}"
        return FeatureNetwork(classifier.name, metric, lambda images: classifier(images)[0])
    if network.startswith("timm:") and file:
        return timm_network(network.removeprefix("timm:"), expanded(file), device)
    raise UsageError(
        f"feature network {specification!r} is not understood; "
        "write inception, inception=FILE, classifier=FOLDER or timm:NAME=FILE"
    )


def inception(weights: Path | None = None, device: torch.device | str = "cpu") -> FeatureNetwork:
    """The network of FID, through the torch-fidelity package: 2048 features of 299 px pictures.

    Args:
        weights: `INCEPTION_FILE`; None looks for it in torch.hub's checkpoints folder.
        device: where the network runs.

    Raises:
        UsageError: the package or the file is missing; the message says how to get it.
        CheckpointError: the file does not hold this network's weights.
    """
    loaded = load_inception(weights, ["2048"], device)
    metric = f"Frechet distance on {loaded.other}" if loaded.other else "FID"
    return FeatureNetwork(loaded.name, metric, lambda images: loaded.network(images)[0])


def load_inception(weights: Path | None, outputs: list[str], device: torch.device | str = "cpu") -> Inception:
    """InceptionV3 with the outputs that are wanted, by torch-fidelity's names; see `inception`."""
    path = weights if weights is not None else Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE)
    if not path.is_file():
        raise UsageError(f"there is no InceptionV3 weights file {path}; {_GET_INCEPTION}")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UsageError(
            "torch-fidelity is not installed; FID needs it: pip install torch-fidelity"
        ) from error
    # The package unpickles whatever it is given, so it is given a copy of tensors that were read safely.
    copy = io.BytesIO()
    torch.save(read_weights(path), copy)
    copy.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception", outputs, feature_extractor_weights_path=copy)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit torch-fidelity's InceptionV3; {_GET_INCEPTION}"
        ) from error
    digest = sha256(path)
    return Inception(
        network=freeze(network).to(device),
        name=f"inception_v3 (torch-fidelity, weights sha256 {digest[:8]})",
        other=None if digest.startswith(_INCEPTION_DIGEST) else f"inception_v3 of {path.name}",
        digest=digest,
    )


def timm_network(name: str, weights: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """A timm model's pooled features, at the model's own resolution and normalisation.

    Args:
        name: timm's name, with or without a tag: `resnet18`, `vit_small_patch14_dinov2.lvd142m`.
        weights: its state dict, .safetensors or a torch file of tensors.
        device: where the network runs.

    Raises:
        UsageError: timm is missing or does not know the name, or there is no such file.
        CheckpointError: the file does not hold this network's weights.
    """
    network = freeze(load_timm_model(name, weights=weights)).to(device)
    from timm.data import resolve_data_config

    config = resolve_data_config({}, model=network)
    mean = torch.tensor(config["mean"], device=device).view(3, 1, 1)
    std = torch.tensor(config["std"], device=device).view(3, 1, 1)
    size = config["input_size"][-2:]

    def extract(images: torch.Tensor) -> torch.Tensor:
        pictures = F.interpolate(images.float() / 255, size=size, mode="bicubic", antialias=True)
        return network((pictures.clamp(0, 1) - mean) / std)

    label = f"{name} (timm, {size[0]} px, weights sha256 {sha256(weights)[:8]})"
    return FeatureNetwork(label, f"Frechet distance on {name}", extract)
