"""LPIPS: two batches of images in [-1, 1] in, one distance for each pair out.

Layout and calibrated heads come from the `lpips` package, the backbone's weights from a local file of
torchvision's. Nothing is downloaded and no random number is drawn: the network is laid out on the meta device
and filled from the two files.
"""

from __future__ import annotations

import typing
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mergevq.errors import CheckpointError, UsageError, unknown_name
from mergevq.models.frozen import EvalOnly, freeze
from mergevq.models.pretrained import read_weights

LpipsNetwork = Literal["vgg", "alex", "squeeze"]

_TORCHVISION_FILES: dict[str, str] = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


class Lpips(EvalOnly):
    """The learned perceptual distance, with fixed weights and always in evaluation mode.

    Differs: everything behind the backbone is float32 under autocast too, and the channel norm has its
    epsilon under the root: the `lpips` package adds it to the root, whose gradient is NaN where the squares
    of all channels underflow.

    Source: The Unreasonable Effectiveness of Deep Features (arXiv:1801.03924), Eq. 1.
    """

    def __init__(self, scaling: nn.Module, backbone: nn.Module, heads: nn.ModuleList) -> None:
        """Take the parts of a network whose weights are in place.

        Args:
            scaling: images in [-1, 1] to the backbone's normalisation.
            backbone: images to a sequence of feature maps.
            heads: for each map, (B, C, h, w) squared differences to (B, 1, h, w) distances.
        """
        super().__init__()
        self.scaling = scaling
        self.backbone = backbone
        self.heads = heads
        freeze(self)

    def forward(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """The distance of each image to its counterpart.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            others: (B, 3, H, W) in [-1, 1].

        Returns:
            (B,) float32, non-negative with the published heads.
        """
        pairs = zip(self.heads, self._features(images), self._features(others), strict=True)
        with torch.autocast(images.device.type, enabled=False):
            distances = [head((a - b).square()).mean(dim=(1, 2, 3)) for head, a, b in pairs]  # each (B,)
        return torch.stack(distances).sum(dim=0)

    def _features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The backbone's maps with channels of unit length."""
        maps = [features.float() for features in self.backbone(self.scaling(images.float()))]
        return [features * (features.square().sum(1, keepdim=True) + 1e-20).rsqrt() for features in maps]


def load_lpips(network: LpipsNetwork, weights: Path | str) -> Lpips:
    """The LPIPS network with a backbone from a local file.

    Its parameters have no business in a checkpoint: hold it as `self.perceptual = Frozen(load_lpips(...))`
    (mergevq/models/frozen.py), which keeps it out of the owner's parameters and state dict.

    Args:
        network: the backbone: "vgg" is the usual one for training, "alex" for evaluation.
        weights: torchvision's state dict of vgg16, alexnet or squeezenet1_1, .safetensors or .pth.

    Returns:
        A frozen module: two (B, 3, H, W) in [-1, 1] to (B,).

    Raises:
        UsageError: the name is unknown, the `lpips` package is missing, or there is no such file.
        CheckpointError: the file is damaged or belongs to another network.

    Source: MergeVQ (arXiv:2504.00999), Table A1; LPIPS (arXiv:1801.03924).
    """
    if network not in typing.get_args(LpipsNetwork):
        raise UsageError(unknown_name("LPIPS network", network, typing.get_args(LpipsNetwork)))
    package = _import_lpips()
    backbone_weights = read_weights(weights)
    with torch.device("meta"), warnings.catch_warnings():
        # lpips 0.1.4 calls torchvision with an argument that torchvision has renamed.
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        parts = package.LPIPS(pretrained=False, net=network, pnet_rand=True, verbose=False)
    _fill_backbone(parts.net, backbone_weights, f"{weights} for the LPIPS network {network!r}")
    heads = read_weights(Path(package.__file__).parent / "weights" / "v0.1" / f"{network}.pth")
    # The heads are listed under lin0, lin1, ... in the file and under their number in the module list.
    parts.lins.load_state_dict(
        {name.removeprefix("lin"): value for name, value in heads.items()}, assign=True
    )
    return Lpips(package.ScalingLayer(), parts.net, parts.lins)


def find_lpips_weights(network: LpipsNetwork) -> Path | None:
    """The backbone's file in torchvision's download cache, if an earlier download left it there.

    Args:
        network: as for `load_lpips`.

    Raises:
        UsageError: the name is unknown.
    """
    if network not in _TORCHVISION_FILES:
        raise UsageError(unknown_name("LPIPS network", network, _TORCHVISION_FILES))
    path = Path(torch.hub.get_dir()) / "checkpoints" / _TORCHVISION_FILES[network]
    return path if path.is_file() else None


def _fill_backbone(backbone: nn.Module, weights: dict[str, torch.Tensor], what: str) -> None:
    """Load torchvision's `features.N.*` into slices that keep the layers' numbers: `slice1.N.*`."""
    names = {name: "features." + name.split(".", 1)[1] for name in backbone.state_dict()}
    missing = [source for source in names.values() if source not in weights]
    if missing:
        raise CheckpointError(
            f"{what} has no {missing[0]}; pass torchvision's vgg16, alexnet or squeezenet1_1 weights"
        )
    try:
        state = {name: weights[source].float() for name, source in names.items()}
        backbone.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{what} has tensors of other shapes than this network") from error


def _import_lpips() -> Any:
    try:
        import lpips
    except ImportError as error:
        raise UsageError(
            "the perceptual loss needs the lpips package; install it, or set the perceptual weight to 0"
        ) from error
    return lpips
