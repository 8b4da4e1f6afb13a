"""What a fine-tuning run of source recovery is."""

from __future__ import annotations

from dataclasses import dataclass, field

from mergevq.losses.source import SourceKind
from mergevq.ranges import Share, check_numbers
from mergevq.training.engine.config import OptimizerConfig, PaceConfig, TokenConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class CorruptionConfig:
    """Which wrong codes are put in."""

    share: Share = 0.3
    """The largest share of an image's codes that is replaced; each image draws its own from 0 up, in [0, 1]."""
    generator: str | None = None
    """A rand_ar generator whose samples, given the true codes before them, replace codes; None flips bits."""

    def __post_init__(self) -> None:
        check_numbers(self, "corruption")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryLossConfig:
    """The source recovery loss."""

    source_kind: SourceKind = "softmax"
    """Cross-entropy over the tokens of each position, or the full Eq. 9."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecoveryRun:
    """Everything that decides a fine-tuning run; the defaults are Table A2 of MergeVQ (arXiv:2504.00999)."""

    data: TokenConfig = field(default_factory=TokenConfig)
    """The tokenizer to fine-tune, and its tokens."""
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    """What is done to the tokens."""
    loss: RecoveryLossConfig = field(default_factory=RecoveryLossConfig)
    """What is minimised."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(betas=(0.9, 0.95), weight_decay=0.01, warmup=100)
    )
    """How it is minimised."""
    train: PaceConfig = field(default_factory=lambda: PaceConfig(epochs=5.0, batch_size=256))
    """For how long."""
