"""Teachers of the global alignment and the heads that speak to them: views in, one vector an image out.

- `TimmTeacher`: a frozen network of timm's. Held through `Frozen`, it is in no checkpoint at all.
- `EmaTeacher`: a running mean of the student itself. It is a submodule of the training module, so that a run
  resumes exactly, and no part of the tokenizer that is exported.
- `AlignmentHead` projects the student's [CLS] to a timm teacher's width; `PrototypeHead` gives student and
  EMA teacher logits over prototypes. Neither counts as a part of the encoder.
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.errors import UsageError
from mergevq.models.frozen import EvalOnly, freeze
from mergevq.models.pretrained import load_timm_model


class TimmTeacher(EvalOnly):
    """A timm network with its own normalisation and view size, frozen and without gradient."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, size: int | None = None) -> None:
        """Wrap a network that has its weights.

        Args:
            network: made by timm without a classifier (num_classes=0).
            size: pixels a side to which views are resized; None: the view's own size where the network
                takes any, the nearest multiple of its patch, or the one size that it accepts.

        Raises:
            UsageError: the network does not take views of `size` pixels.
        """
        super().__init__()
        from timm.data.config import resolve_model_data_config

        data = resolve_model_data_config(network)
        self.network = freeze(network)
        self.num_features = int(network.num_features)  # type: ignore[arg-type]  # an int on every timm model
        self.patch = _patch_size(network)
        self.fixed = int(data["input_size"][-1]) if _has_fixed_size(network) else None
        self.size = size
        if size is not None and self._accepted(size) != size:
            raise UsageError(
                f"the teacher does not take views of {size} px; the nearest size is {self._accepted(size)}"
            )
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(data["std"]).view(1, 3, 1, 1))

    @torch.no_grad()
    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The [CLS] or pooled feature of each view.

        Args:
            views: (B, 3, V, V) in [-1, 1].

        Returns:
            (B, num_features), without gradient.
        """
        size = self._accepted(self.size or views.shape[-1])
        views = views.float()
        if views.shape[-2:] != (size, size):
            views = F.interpolate(views, (size, size), mode="bicubic", antialias=True)  # (B, 3, size, size)
        features: torch.Tensor = self.network(((views + 1.0) / 2.0 - self.mean) / self.std)
        return features

    def _accepted(self, size: int) -> int:
        """The nearest number of pixels a side that the network takes."""
        if self.fixed is not None:
            return self.fixed
        return max(round(size / self.patch), 1) * self.patch


def load_timm_teacher(
    name: str = "vit_base_patch14_dinov2.lvd142m",
    *,
    weights: Path | str | None = None,
    pretrained: bool = False,
    size: int | None = None,
) -> TimmTeacher:
    """A teacher by timm's name, with weights from a local file or, on request, from timm's hub.

    Args:
        name: timm's name of the model.
        weights: .safetensors or .pth of the model; nothing is downloaded then.
        pretrained: fetch timm's weights for `name` (its cache or the network).
        size: as for `TimmTeacher`.

    Raises:
        UsageError: the name is unknown, weights are not given by exactly one of the two, or the hub cannot
            be reached.
        CheckpointError: the file is damaged or does not fit.

    Source: MergeVQ (arXiv:2504.00999), Sec. 3.2; DINOv2 (arXiv:2304.07193).
    """
    try:
        network = load_timm_model(name, weights=weights, pretrained=pretrained, dynamic_img_size=True)
    except TypeError:  # not a plain ViT: it takes one size, or any
        network = load_timm_model(name, weights=weights, pretrained=pretrained)
    return TimmTeacher(network, size)


class EmaTeacher(EvalOnly):
    """An exponential moving average of the student's weights, in evaluation mode and without gradient.

    Source: DINO (arXiv:2104.14294), Sec. 3.1.
    """

    def __init__(self, student: nn.Module, decay: float = 0.996) -> None:
        """Start as a copy of the student.

        Args:
            student: views to (B, P); the encoder's [CLS] and its head as one module.
            decay: share of the old weights kept by an update, in [0, 1).

        Raises:
            UsageError: the decay is outside [0, 1).
        """
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"the teacher's decay is {decay}; it must be in [0, 1)")
        self.decay = decay
        self.network = freeze(copy.deepcopy(student))

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the weights towards the student's and take its buffers; call it after an optimiser step.

        Args:
            student: the module that this teacher was made from.
        """
        for mean, value in zip(self.network.parameters(), student.parameters(), strict=True):
            mean.lerp_(value.to(mean), 1.0 - self.decay)
        for kept, current in zip(self.network.buffers(), student.buffers(), strict=True):
            kept.copy_(current)

    @torch.no_grad()
    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The averaged network's output.

        Args:
            views: what the student takes.

        Returns:
            What the student returns, without gradient.
        """
        outputs: torch.Tensor = self.network(views)
        return outputs


class AlignmentHead(nn.Sequential):
    """An MLP with GELU and a hidden width of four times the student's; not part of the encoder's count."""

    def __init__(self, width: int, out: int, layers: int = 3) -> None:
        """Lay out the head.

        Args:
            width: of the student's [CLS].
            out: the teacher's feature width.
            layers: linear layers; the paper's sizes fit 2 for G and 3 for G+R and R.

        Raises:
            UsageError: there is no layer.
        """
        if layers < 1:
            raise UsageError(f"the alignment head has {layers} layers; it needs at least 1")
        widths = [width, *[4 * width] * (layers - 1), out]
        modules: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            modules += [nn.Linear(before, after), nn.GELU()]
        super().__init__(*modules[:-1])


class PrototypeHead(nn.Module):
    """The student's [CLS] to cosines with learnt prototypes, for the EMA teacher.

    Without the unit length of the bottleneck and the prototypes a head of three layers does not train.

    Source: DINO (arXiv:2104.14294), Appendix C.
    """

    def __init__(self, width: int, prototypes: int, layers: int = 3, bottleneck: int = 256) -> None:
        """Lay out the head.

        Args:
            width: of the student's [CLS].
            prototypes: P, the number of categories.
            layers: linear layers before the prototypes.
            bottleneck: width of the space in which prototypes and projections have unit length.

        Raises:
            UsageError: there is no layer.
        """
        super().__init__()
        self.project = AlignmentHead(width, bottleneck, layers)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits over the prototypes.

        Args:
            features: (B, width).

        Returns:
            (B, prototypes) in [-1, 1].
        """
        projected = F.normalize(self.project(features), dim=-1)  # (B, bottleneck)
        return projected @ F.normalize(self.prototypes, dim=-1).T  # (B, prototypes)


def _has_fixed_size(network: nn.Module) -> bool:
    """Whether the network takes one image size only."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return bool(config.get("fixed_input_size", False)) and not getattr(network, "dynamic_img_size", False)


def _patch_size(network: nn.Module) -> int:
    """Pixels a side of a ViT's patch; 1 for networks without patches."""
    embedding = getattr(network, "patch_embed", None)
    size = getattr(embedding, "patch_size", 1)
    return int(size[0] if isinstance(size, (tuple, list)) else size)
