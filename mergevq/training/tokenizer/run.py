"""A stage-1 run from its configuration: pictures in, a tokenizer in the run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything

from mergevq.backends import Device
from mergevq.data.images.loader import eval_loader, train_loader
from mergevq.data.images.sources import open_source
from mergevq.data.listing.splits import Split
from mergevq.models.store import load, save
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.models.weight_selection import initialise_blocks, load_timm_blocks
from mergevq.training.engine.checkpoint import LAST, steps_done
from mergevq.training.engine.launch import Launch, planned_steps, prepare, train
from mergevq.training.engine.listings import list_pictures
from mergevq.training.engine.monitor import CsvLog
from mergevq.training.engine.processes.cluster import is_first_process
from mergevq.training.engine.run_folder import PACE_MAY_CHANGE, finish, last_checkpoint, only_run
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.training.tokenizer.validation import TokenizerValidation

_MAY_CHANGE = PACE_MAY_CHANGE | {"data.max_failures"}
_PARTS: dict[str, Split] = {"training": "train", "validation": "val"}


def train_tokenizer(
    config: TokenizerRun,
    out: Path,
    device: Device,
    devices: int = 1,
    initial: Tokenizer | None = None,
) -> Path:
    """Trains a tokenizer, or goes on where the run in `out` stopped.

    Args:
        config: the run.
        out: the run folder.
        device: what it runs on.
        devices: how many of them.
        initial: weights to begin with instead of random ones; a resumed run has its own.

    Returns:
        The run folder, which `mergevq.load` takes.

    Raises:
        ConfigError: `out` holds a run with other settings, or on other data.
        UsageError: another run is writing to `out`.
        MergeVQError: whatever else a user can cause.
    """
    launch = prepare(config.train, out, device, devices, listings=_listings(config))
    with only_run(out):
        _train(config, launch, initial)
    return out


def _listings(config: TokenizerRun) -> dict[str, Any]:
    """The pictures of both parts, on the process that writes the checkpoints: a list of millions takes a while."""
    if not is_first_process():
        return {}
    return {
        part: list_pictures(open_source(config.data.path, split, config.data.holdout))
        for part, split in _PARTS.items()
    }


def _train(config: TokenizerRun, launch: Launch, initial: Tokenizer | None) -> None:
    """Trains in a folder that no other run writes to."""
    out, device = launch.out, launch.device
    last = last_checkpoint(config, out, launch.circumstances, _MAY_CHANGE, launch.listings, "pictures")
    done = steps_done(last)
    steps = total_steps(config, launch.images_per_step)
    if last and done >= steps:
        finish(out, last, lambda: load(out), lambda averaged: save(load(out / LAST), out))
        return
    seed_everything(config.train.seed, verbose=False)
    tokenizer = initial or _fresh(config)
    if device.channels_last():
        tokenizer = tokenizer.to(memory_format=torch.channels_last)
    train(
        config,
        TokenizerTraining(config, tokenizer, steps, launch.images_per_step),
        launch,
        last,
        validation=lambda log: _validation(config, out, log),
        loader=lambda trainer: _train_loader(config, steps, done, trainer),
    )


def total_steps(config: TokenizerRun, images_per_step: int) -> int:
    """Optimiser steps of the run."""
    return planned_steps(
        config.train,
        images_per_step,
        lambda: len(open_source(config.data.path, "train", config.data.holdout)),
    )


def _fresh(config: TokenizerRun) -> Tokenizer:
    """Random weights, the attention blocks from a larger network where one is named."""
    tokenizer = Tokenizer(config.model)
    if config.train.blocks_from is not None:
        initialise_blocks(tokenizer.encoder.blocks, load_timm_blocks(config.train.blocks_from))
    return tokenizer


def _validation(config: TokenizerRun, out: Path, log: CsvLog) -> TokenizerValidation:
    loader = eval_loader(
        config.data,
        size=config.model.image_size,
        batch_size=config.train.batch_size,
        limit=config.train.validate_images,
    )
    return TokenizerValidation(out, log, loader, config.train.validate_every)


def _train_loader(config: TokenizerRun, steps: int, done: int, trainer: Trainer) -> Any:
    accumulate = config.train.accumulate
    return train_loader(
        config.data,
        size=config.model.image_size,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
        start=done * accumulate,
        steps=steps * accumulate,
        view_size=config.alignment.view if config.alignment.kind != "none" else None,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
