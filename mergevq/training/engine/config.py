"""What a run of any stage is: its pace, its optimiser, and the tokens where it is trained on tokens.

The defaults are those of MergeVQ (arXiv:2504.00999), Table A1, where it names one.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from mergevq.errors import ConfigError, unknown_name

Precision = Literal["auto", "32", "bf16"]
ScheduleKind = Literal["constant", "step", "cosine"]


def check_choices(config: object, **choices: object) -> None:
    """Raises ConfigError for a value that is not one of a Literal's."""
    for name, alias in choices.items():
        known = typing.get_args(alias)
        if getattr(config, name) not in known:
            raise ConfigError(unknown_name(name, str(getattr(config, name)), known))


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW, its learning rate over time, clipping and averaging."""

    rate: float = 1e-4
    """Learning rate for a batch of 256; scaled in proportion to the batch."""
    betas: tuple[float, ...] = (0.5, 0.9)
    """Decay rates of the first and the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    schedule: ScheduleKind = "step"
    """How the rate falls after the warm-up."""
    warmup: int = 1000
    """Optimiser steps of linear warm-up."""
    milestones: tuple[float, ...] = (0.85, 0.95)
    """Shares of the run at which a step schedule multiplies the rate by `gamma`."""
    gamma: float = 0.1
    """Factor at each milestone; the cosine ends at this share of the rate."""
    clip: float | None = None
    """Largest norm of the gradient; None does not clip."""
    ema: float = 0.999
    """Decay of the average of the weights, which is what is evaluated and saved."""

    def __post_init__(self) -> None:
        check_choices(self, schedule=ScheduleKind)
        if self.rate <= 0 or len(self.betas) != 2:
            raise ConfigError(
                f"optimizer.rate {self.rate} must be positive and betas {self.betas} two numbers"
            )
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"optimizer.clip is {self.clip}; it must be positive, or null for none")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"optimizer.ema is {self.ema}; it must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceConfig:
    """The pace of a run of any stage."""

    steps: int | None = None
    """Optimiser steps; None takes `epochs`."""
    epochs: float = 270.0
    """Passes over the data, where `steps` is None."""
    batch_size: int = 16
    """Images a device in one pass."""
    accumulate: int = 1
    """Passes whose gradients are added up for one optimiser step. Not always the run of one larger pass: a tokenizer's
    codebook entropy and the discriminator's statistics are of each pass, and so is whatever is drawn at random."""
    precision: Precision = "auto"
    """Autocast: "32", "bf16", or what the device is fastest in."""
    seed: int = 0
    """Decides the weights, the order of the data and whatever else is drawn."""
    log_every: int = 50
    """Optimiser steps between lines of the log."""
    validate_every: int = 1000
    """Optimiser steps between validations, each with a picture."""
    validate_images: int = 512
    """Validation images at the most."""
    checkpoint_every: int = 500
    """Optimiser steps between checkpoints."""
    tensorboard: bool = False
    """Whether to log for TensorBoard too."""
    compile: bool = False
    """Whether to compile the model with torch.compile."""

    def __post_init__(self) -> None:
        check_choices(self, precision=Precision)
        for name in ("batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"train.steps is {self.steps}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenConfig:
    """The tokens that are trained on."""

    tokenizer: str = ""
    """The checkpoint of the tokenizer that made them."""
    path: str = ""
    """Their folder, as `mergevq tokens` writes it."""
    validation: str | None = None
    """Another such folder to validate on; None holds out a share of `path`."""
    holdout: float = 0.02
    """Share of the pictures held out for validation where there is no such folder, in (0, 1)."""
    workers: int = 0
    """Processes that read, for each device; 0 reads in the training process."""

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ConfigError(f"data.holdout is {self.holdout}; it must lie between 0 and 1")
        if self.workers < 0:
            raise ConfigError(f"data.workers is {self.workers}; it cannot be negative")
