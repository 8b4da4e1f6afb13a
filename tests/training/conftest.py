"""Runs that have every part of a stage in them and take seconds."""

from __future__ import annotations

import pytest
import torch

import mergevq
from mergevq.backends import select
from mergevq.config import override
from mergevq.data.images.sources import open_source
from mergevq.data.tokens.extraction import describe, extract
from mergevq.generator_config import generator_config
from mergevq.training.generator.recipes import generator_recipe
from mergevq.training.recovery.config import RecoveryRun
from mergevq.training.tokenizer.recipes import recipe

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


TINY = {key.removeprefix("model."): value for key, value in SMALL.items() if key.startswith("model.")}
PACE = {
    "data.holdout": 0.25,
    "train.batch_size": 4,
    "train.accumulate": 2,
    "train.steps": 6,
    "train.log_every": 1,
    "train.validate_every": 100,
    "train.checkpoint_every": 2,
    "optimizer.warmup": 2,
    "optimizer.rate": 0.1,
}


@pytest.fixture(scope="session")
def token_home(tmp_path_factory, photo_crops):
    """A folder with a tokenizer, `tok`, and the tokens of twelve pictures of two classes, `tokens`."""
    home = tmp_path_factory.mktemp("stage2")
    torch.manual_seed(0)
    tokenizer = mergevq.create("tiny-32", **TINY).eval()
    mergevq.save(tokenizer, home / "tok")
    for number, (label, picture) in enumerate(photo_crops):
        (home / "images" / label).mkdir(parents=True, exist_ok=True)
        picture.save(home / "images" / label / f"{number:02}.png")
    source = open_source(str(home / "images"), "all")
    meta = describe(tokenizer, source, "all", counts=(24, 40), views=3, shard_size=5)
    extract(tokenizer, source, home / "tokens", meta)
    return home


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
