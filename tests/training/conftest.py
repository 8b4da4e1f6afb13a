"""A run that has every part of stage 1 in it and takes seconds."""

from __future__ import annotations

import pytest

from mergevq.backends import select
from mergevq.config import override
from mergevq.training.recipes import recipe

SMALL = {
    "model.encoder.channels": 8,
    "model.encoder.width": 32,
    "model.encoder.heads": 2,
    "model.encoder.depth": 2,
    "model.decoder.channels": 8,
    "model.decoder.width": 32,
    "model.decoder.heads": 2,
    "model.decoder.depth": 1,
    "model.recovery.width": 32,
    "model.recovery.heads": 2,
    "model.recovery.depth": 1,
    "model.quantizer.bits": 8,
    "data.path": "builtin:photos",
    "data.workers": 0,
    "train.batch_size": 4,
    "train.steps": 6,
    "train.log_every": 1,
    "train.validate_every": 100,
    "train.validate_images": 4,
    "train.checkpoint_every": 2,
    "optimizer.warmup": 2,
    "keep.least": 24,
    "keep.most": 64,
}

EVERYTHING = {
    "loss.adversarial": 0.8,
    "loss.discriminator_layers": 1,
    "loss.adversarial_start": 1,
    "loss.lecam": 0.01,
    "loss.alignment": 1.0,
    "alignment.kind": "self",
    "alignment.view": 24,
    "alignment.prototypes": 16,
    "alignment.head_layers": 2,
    "train.accumulate": 2,
}


@pytest.fixture
def small_run():
    """Pixels, codes and source only."""
    return override(recipe("tiny-32"), SMALL)


@pytest.fixture
def whole_run():
    """Adversary, LeCAM, self-teacher and accumulation too."""
    return override(recipe("tiny-32"), SMALL | EVERYTHING)


@pytest.fixture
def cpu():
    """The CPU."""
    return select("cpu")
