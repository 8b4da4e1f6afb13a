"""A stage-2 run from its configuration: token shards in, a generator in the run folder out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mergevq.backends import Device
from mergevq.data.images.sampler import random_generator
from mergevq.data.tokens.meta import TokenMeta
from mergevq.data.tokens.splits import TokenRows
from mergevq.errors import ConfigError
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generation.store import load_generator, save
from mergevq.generator_config import GeneratorConfig
from mergevq.models.generators.autoregressive import Generator, first_positions
from mergevq.training.engine.launch import prepare
from mergevq.training.engine.token_run import TOKENS_MAY_CHANGE, open_tokens, train_on_tokens
from mergevq.training.generator.config import GeneratorRun
from mergevq.training.generator.module import GeneratorTraining
from mergevq.training.generator.validation import GeneratorValidation

LAYOUTS = 64
"""Sets of first positions that rand_ar remembers of each class."""
_MAY_CHANGE = TOKENS_MAY_CHANGE | {"train.samples", "train.sample_classes", "train.sample_guidance"}
_CHUNK = 1024


def train_generator(config: GeneratorRun, out: Path, device: Device, devices: int = 1) -> Path:
    """Trains a generator, or goes on where the run in `out` stopped.

    Args:
        config: the run; `data.tokenizer` and `data.path` must be given.
        out: the run folder.
        device: what it runs on.
        devices: how many of them.

    Returns:
        The run folder, which `mergevq.load` takes.

    Raises:
        UsageError: the generator does not fit the tokens, or `out` holds a run with other settings
            or on other tokens, or another run is writing to it.
        CheckpointError: the tokens were made by another tokenizer.
        MergeVQError: whatever else a user can cause.
    """
    tokens = open_tokens(config.data)
    check_model(config.model, tokens.training.meta)

    def module(steps: int, global_batch: int) -> GeneratorTraining:
        model = Generator(config.model)
        if config.model.kind == "rand_ar":
            model.remember_layouts(*layouts(tokens.training, config.train.seed))
        return GeneratorTraining(config, model, tokens.tokenizer, steps, global_batch)

    def renew(averaged: dict[str, torch.Tensor]) -> None:
        model = Generator(config.model)
        model.load_state_dict(averaged)
        save(ImageGenerator(model, tokens.tokenizer), out)

    return train_on_tokens(
        config,
        tokens,
        prepare(config.train, out, device, devices, {"tokens": tokens.digest}, tokens.listings),
        may_change=_MAY_CHANGE,
        module=module,
        validation=lambda log: GeneratorValidation(out, log, tokens.held_out, config.train),
        present=lambda: load_generator(out).model,
        renew=renew,
    )


def check_model(model: GeneratorConfig, meta: TokenMeta) -> None:
    """Makes sure that a generator fits the tokens.

    Raises:
        ConfigError: it does not; the setting is named.
    """
    wanted = {"grid": meta.grid[0], "counts": meta.counts, "classes": meta.classes}
    for name, value in wanted.items():
        if getattr(model, name) != value:
            raise ConfigError(f"model.{name} is {getattr(model, name)} and the tokens have {value}")
    if model.bits != meta.bits:
        raise ConfigError(
            f"model.split {model.split} makes {model.bits} bits and the tokens have {meta.bits}"
        )


def layouts(rows: TokenRows, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of some training images begin, up to `LAYOUTS` of each class.

    Args:
        rows: the training part.
        seed: decides which.

    Returns:
        (n, L) bool sets of first positions, and (n,) int64 classes.
    """
    missing = np.full(rows.meta.classes, LAYOUTS)
    order = random_generator(seed % 2**64).permutation(len(rows))
    sets, classes = [], []
    for first in range(0, len(order), _CHUNK):
        batch = rows.batch(order[first : first + _CHUNK])
        wanted = []
        for row, label in enumerate(batch.labels.tolist()):
            if missing[label]:
                missing[label] -= 1
                wanted.append(row)
        starts = first_positions(batch.source[wanted], batch.indices.shape[1])  # (n, Kmax)
        # Past the kept count of a row stands 0, where its first token begins anyway.
        sets.append(torch.zeros(len(wanted), rows.meta.length).scatter(1, starts, 1.0).bool())
        classes.append(batch.labels[wanted])
        if not missing.any():
            break
    return torch.cat(sets), torch.cat(classes)
