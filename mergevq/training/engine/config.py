"""What a run of any stage is: its pace, its optimiser, and the tokens where it is trained on tokens.

The defaults are those of MergeVQ (arXiv:2504.00999), Table A1, where it names one.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Annotated, Literal

from mergevq.errors import ConfigError, unknown_name
from mergevq.ranges import Count, Length, PartialShare, Range, Seed, Share, Workers, check_numbers

Precision = Literal["auto", "32", "bf16"]
ScheduleKind = Literal["constant", "step", "cosine"]
Passes = Annotated[int, Range(1, 2**20)]
"""Images in one pass, or passes in one step."""


def check_choices(config: object, **choices: object) -> None:
    """Raises ConfigError for a value that is not one of a Literal's."""
    for name, alias in choices.items():
        known = typing.get_args(alias)
        if getattr(config, name) not in known:
            raise ConfigError(unknown_name(name, str(getattr(config, name)), known))


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW, its learning rate over time, clipping and averaging."""

    rate: Annotated[float, Range(0, 100, ends="(]")] = 1e-4
    """Learning rate for a batch of 256; scaled in proportion to the batch."""
    betas: Annotated[tuple[PartialShare, ...], Length(2, 2)] = (0.5, 0.9)
    """Decay rates of the first and the second moment."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """Decoupled weight decay."""
    schedule: ScheduleKind = "step"
    """How the rate falls after the warm-up."""
    warmup: Annotated[int, Range(0, 10**9)] = 1000
    """Optimiser steps of linear warm-up."""
    milestones: Annotated[tuple[Share, ...], Length(0, 100)] = (0.85, 0.95)
    """Shares of the run at which a step schedule multiplies the rate by `gamma`."""
    gamma: Share = 0.1
    """Factor at each milestone; the cosine ends at this share of the rate."""
    clip: Annotated[float, Range(0, 10**9, ends="(]")] | None = None
    """Largest norm of the gradient; None does not clip."""
    ema: PartialShare = 0.999
    """Decay of the average of the weights, which is what is evaluated and saved."""

    def __post_init__(self) -> None:
        check_choices(self, schedule=ScheduleKind)
        check_numbers(self, "optimizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceConfig:
    """The pace of a run of any stage."""

    steps: Count | None = None
    """Optimiser steps; None takes `epochs`."""
    epochs: Annotated[float, Range(0, 10**6, ends="(]")] = 270.0
    """Passes over the data, where `steps` is None."""
    batch_size: Passes = 16
    """Images a device in one pass."""
    accumulate: Passes = 1
    """Passes whose gradients are added up for one optimiser step. Not always the run of one larger pass: a tokenizer's
    codebook entropy and the discriminator's statistics are of each pass, and so is whatever is drawn at random."""
    precision: Precision = "auto"
    """Autocast: "32", "bf16", or what the device is fastest in."""
    seed: Seed = 0
    """Decides the weights, the order of the data and whatever else is drawn."""
    log_every: Count = 50
    """Optimiser steps between lines of the log."""
    validate_every: Count = 1000
    """Optimiser steps between validations, each with a picture."""
    validate_images: Count = 512
    """Validation images at the most."""
    checkpoint_every: Count = 500
    """Optimiser steps between checkpoints."""
    tensorboard: bool = False
    """Whether to log for TensorBoard too."""
    compile: bool = False
    """Whether to compile the model with torch.compile."""

    def __post_init__(self) -> None:
        check_choices(self, precision=Precision)
        check_numbers(self, "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenConfig:
    """The tokens that are trained on."""

    tokenizer: str = ""
    """The checkpoint of the tokenizer that made them."""
    path: str = ""
    """Their folder, as `mergevq tokens` writes it."""
    validation: str | None = None
    """Another such folder to validate on; None holds out a share of `path`."""
    holdout: Annotated[float, Range(0, 1, ends="()")] = 0.02
    """Share of the pictures held out for validation where there is no such folder, in (0, 1)."""
    workers: Workers = 0
    """Processes that read, for each device; 0 reads in the training process."""

    def __post_init__(self) -> None:
        check_numbers(self, "data")
