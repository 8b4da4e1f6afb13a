"""Runs that have every part of a stage in them and take seconds."""

from __future__ import annotations

import pytest

import mergevq
from mergevq.backends import select
from mergevq.config import override
from mergevq.generator_config import generator_config
from mergevq.training.generator.recipes import generator_recipe
from mergevq.training.recovery.config import RecoveryRun
from mergevq.training.tokenizer.recipes import recipe

from ..conftest import TINY

SMALL = {
    **{f"model.{key}": value for key, value in TINY.items()},
    "data.path": "builtin:photos",
    "data.workers": 0,
    "train.precision": "32",  # runs are compared number by number, whatever the processor is fast in
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


PACE = {
    "data.holdout": 0.25,
    "train.precision": "32",
    "train.batch_size": 4,
    "train.accumulate": 2,
    "train.steps": 6,
    "train.log_every": 1,
    "train.validate_every": 100,
    "train.checkpoint_every": 2,
    "optimizer.warmup": 2,
    "optimizer.rate": 0.1,
}


@pytest.fixture
def generator_run(token_home):
    """Makes a run of a kind, with everything that draws: dropout, class dropout, orders."""

    def make(kind, **changes):
        tokenizer = mergevq.load(token_home / "tok").config
        model = generator_config("nano", kind, tokenizer, counts=(24, 40), classes=2, width=64, depth=1)
        tokens = {"data.tokenizer": str(token_home / "tok"), "data.path": str(token_home / "tokens")}
        rest = {"train.samples": 2, "model.dropout": 0.1, "model.window": 4}
        return override(generator_recipe(model), PACE | tokens | rest | changes)

    return make


@pytest.fixture
def recovery_run(token_home):
    """Fine-tuning without a generator."""
    tokens = {"data.tokenizer": str(token_home / "tok"), "data.path": str(token_home / "tokens")}
    return override(RecoveryRun(), PACE | tokens)
