"""What a stage-1 run is: the tokenizer, its pictures, its losses and teacher, the counts that it keeps.

The defaults are those of MergeVQ (arXiv:2504.00999), Table A1, where it names one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from mergevq.config import TokenizerConfig
from mergevq.data.images.loader import DataConfig
from mergevq.errors import ConfigError
from mergevq.models.tokenizer.merge import fewest
from mergevq.ranges import PartialShare, Range, Weight, check_numbers
from mergevq.training.engine.config import OptimizerConfig, PaceConfig, check_choices

KeepKind = Literal["fixed", "exponential", "gaussian", "uniform"]
AlignmentKind = Literal["none", "distill", "self"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights of the loss terms. At 0 the perceptual, adversarial and alignment networks are left out too."""

    reconstruction: Weight = 1.0
    """Weight of the pixel loss."""
    reconstruction_kind: Literal["l2", "l1"] = "l2"
    """The pixel loss; the paper says l2, the released code runs l1."""
    perceptual: Weight = 0.7
    """Weight of LPIPS; needs the network's weights, which are never downloaded."""
    perceptual_network: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The network of LPIPS."""
    perceptual_weights: str | None = None
    """File with the backbone's weights; by default torchvision's cache is looked into."""
    adversarial: Weight = 0.8
    """Weight of the generator's adversarial loss."""
    adversarial_kind: Literal["hinge", "non_saturating"] = "hinge"
    """The generator's adversarial loss; the discriminator's is the hinge."""
    adaptive: bool = True
    """Whether the adversarial weight is multiplied by the ratio of the gradient norms at the last layer."""
    adversarial_start: Annotated[int, Range(0, 10**9)] = 0
    """Optimiser step at which adversarial training begins."""
    discriminator_layers: Annotated[int, Range(1, 12)] = 3
    """Strided layers of the PatchGAN."""
    lecam: Weight = 0.01
    """Weight of LeCAM regularisation in the discriminator's loss."""
    commitment: Weight = 0.25
    """Weight of the distance between a token and its code."""
    entropy: Weight = 0.1
    """Weight of the mean entropy less the entropy of the mean."""
    temperature: Annotated[float, Range(0, 10**6, ends="(]")] = 0.01
    """Temperature of the code distribution whose entropies these are."""
    source: Weight = 0.5
    """Weight of the source recovery loss; it also reaches the encoder, through the codes."""
    source_end: Weight | None = None
    """Weight of the source recovery loss at the end of the run, approached by a constant factor a step; None keeps
    it. Positions once in the codes stay there at a smaller weight, which leaves more of them to the picture."""
    source_kind: Literal["softmax", "binary"] = "softmax"
    """Cross-entropy over the tokens of each position, or the full Eq. 9."""
    alignment: Weight = 1.0
    """Weight of the global alignment of the class token."""

    def __post_init__(self) -> None:
        check_numbers(self, "loss")
        if self.source_end is not None and not (self.source_end > 0 and self.source > 0):
            raise ConfigError(
                f"loss.source_end is {self.source_end} and loss.source {self.source}; one is approached from the "
                "other by a constant factor, so both must be positive"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """The teacher of the class token."""

    kind: AlignmentKind = "distill"
    """A frozen timm network, an average of the encoder itself (no weights needed), or none."""
    teacher: str = "vit_base_patch14_dinov2.lvd142m"
    """timm's name of the frozen teacher."""
    weights: str | None = None
    """File with the teacher's weights; without it `download` must be true."""
    download: bool = False
    """Whether timm may fetch the teacher's weights from its hub."""
    head_layers: Annotated[int, Range(1, 64)] = 3
    """Linear layers between the class token and the teacher's features."""
    prototypes: Annotated[int, Range(1, 2**20)] = 1024
    """Categories of the self-teacher."""
    decay: PartialShare = 0.996
    """Decay of the self-teacher's average."""
    view: Annotated[int, Range(1, 2**14)] = 224
    """Pixels a side of the student's view; a multiple of the stride."""

    def __post_init__(self) -> None:
        check_choices(self, kind=AlignmentKind)
        check_numbers(self, "alignment")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepConfig:
    """How many tokens a training step keeps; one count a step, the same on every rank."""

    kind: KeepKind = "gaussian"
    """Squares around the preset's count, squares upwards from it, any count, or always the preset's."""
    least: Annotated[int, Range(1, 2**24)] = 121
    """The smallest count."""
    most: Annotated[int, Range(1, 2**24)] = 225
    """The largest count."""
    rate: Annotated[float, Range(0, 100, ends="(]")] = 0.5
    """lambda of the exponential distribution over the side of the square (Eq. 15)."""
    deviation: Annotated[float, Range(0.001, 1000)] = 1.0
    """sigma of the Gaussian over the side of the square (Eq. 16)."""
    centre: Annotated[int, Range(1, 2**24)] | None = None
    """The count where the exponential starts and the Gaussian is centred; None: the preset's."""
    floor: Annotated[float, Range(0, 10**6)] = 0.0
    """Added to the weight of every square, the greatest of which is about 1, before they are made to sum to 1."""
    draws: Annotated[int, Range(1, 10**6)] | None = None
    """Draws among which each square has a whole number; None leaves the shares as they are. The released code goes
    through 100 evenly spaced numbers."""

    def __post_init__(self) -> None:
        check_choices(self, kind=KeepKind)
        check_numbers(self, "keep")
        if self.least > self.most:
            raise ConfigError(f"keep.least {self.least} is more than keep.most {self.most}")
        if self.kind in ("exponential", "gaussian") and math.isqrt(self.most) ** 2 < self.least:
            raise ConfigError(f"there is no square between keep.least {self.least} and keep.most {self.most}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(PaceConfig):
    """The pace of a stage-1 run, and where its weights begin."""

    blocks_from: str | None = None
    """A timm ViT to initialise the encoder's attention blocks from by weight selection: its weights' file, or
    its name (the paper takes vit_base_patch14_dinov2.lvd142m for G and G+R), which timm's hub is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerRun:
    """Everything that decides a stage-1 training run."""

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    """The tokenizer."""
    data: DataConfig = field(default_factory=DataConfig)
    """The pictures."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimised."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """The teacher."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    """The kept counts."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How it is minimised."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """For how long."""

    def __post_init__(self) -> None:
        least = fewest(self.model.length, self.model.encoder.depth)
        drawn = (
            self.model.merge.keep
            if self.keep.kind == "fixed"
            else min(self.keep.least, self.model.merge.keep)
        )
        if drawn < least:
            raise ConfigError(
                f"{self.model.encoder.depth} blocks cannot merge {self.model.length} tokens into {drawn}; the "
                f"smallest count that can be reached is {least} (keep.least, model.merge.keep)"
            )
        if (self.alignment.kind == "none") != (self.loss.alignment == 0):
            raise ConfigError(
                f"alignment.kind is {self.alignment.kind} and loss.alignment {self.loss.alignment}; "
                "to align give both, to leave it out set the kind to none and the weight to 0"
            )
        if self.keep.most > self.model.length:
            raise ConfigError(
                f"keep.most {self.keep.most} exceeds the {self.model.length} positions of the grid"
            )
        if self.alignment.kind != "none" and self.alignment.view % self.model.stride:
            raise ConfigError(
                f"alignment.view {self.alignment.view} is not a multiple of the stride {self.model.stride}"
            )
