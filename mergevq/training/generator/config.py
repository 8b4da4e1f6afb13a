"""What a stage-2 run is: the generator, its tokens, its loss, and the settings that every stage has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from mergevq.generator_config import GeneratorConfig
from mergevq.ranges import PartialShare, Range, check_numbers
from mergevq.training.engine.config import OptimizerConfig, PaceConfig, TokenConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorLossConfig:
    """The cross-entropy of the next token.

    Table A2 of the paper smooths labels by 0.1. A model that has learned it spreads a tenth of the probability
    over each vocabulary of sub-codes, which shows in every sample that is drawn without top-k or top-p; and
    neither LlamaGen, RandAR nor Open-MAGVIT2 smooths. So the default is none.
    """

    label_smoothing: PartialShare = 0.0
    """Share of the target that is spread over all sub-codes, in [0, 1)."""

    def __post_init__(self) -> None:
        check_numbers(self, "loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorPaceConfig(PaceConfig):
    """The pace of a stage-2 run, and the samples that are painted at each validation."""

    samples: Annotated[int, Range(0, 10**4)] = 8
    """Samples of each class in the picture; 0 paints none."""
    sample_classes: Annotated[int, Range(1, 10**4)] = 10
    """Classes in the picture, the first ones."""
    sample_guidance: Annotated[float, Range(0, 1000)] = 1.0
    """Scale of classifier-free guidance of these samples; 1 is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorRun:
    """Everything that decides a stage-2 training run."""

    model: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator."""
    data: TokenConfig = field(default_factory=TokenConfig)
    """The tokens."""
    loss: GeneratorLossConfig = field(default_factory=GeneratorLossConfig)
    """What is minimised."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How it is minimised."""
    train: GeneratorPaceConfig = field(default_factory=GeneratorPaceConfig)
    """For how long."""
