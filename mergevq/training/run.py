"""A stage-1 run from its configuration: data, device, Lightning, the run folder, and resuming.

runs/tok/
  run.yaml            the whole configuration
  environment.json    versions, device, command
  log.csv             losses and validation by step
  pictures/           reconstructions by step
  checkpoints/        last.ckpt: everything that a resumed run needs
  config.json, model.safetensors      the averaged tokenizer, for mergevq.load
"""

from __future__ import annotations

import json
import logging
import math
import platform
import sys
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from mergevq.backends import Device
from mergevq.config import to_dict
from mergevq.data.loader import eval_loader, train_loader
from mergevq.data.sources import open_source
from mergevq.errors import CheckpointError, ConfigError, MergeVQError, OutputError
from mergevq.models.store import load, read_checkpoint, save, write_atomically
from mergevq.models.tokenizer import Tokenizer
from mergevq.models.weight_selection import initialise_blocks, load_timm_blocks
from mergevq.training.checkpoint import LAST, AtomicCheckpointIO, StepCheckpoint
from mergevq.training.config import TokenizerRun
from mergevq.training.monitor import CsvLog, Progress, Validation
from mergevq.training.tokenizer import TokenizerTraining

logger = logging.getLogger(__name__)

_MAY_CHANGE = {
    "data.workers",
    "data.max_failures",
    "train.log_every",
    "train.validate_every",
    "train.validate_images",
    "train.checkpoint_every",
    "train.tensorboard",
    "train.compile",
}
"""Settings that do not decide the weights, so that a resumed run may have others."""


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
        ConfigError: `out` holds a run with other settings.
        MergeVQError: whatever else a user can cause.
    """
    _quieten_lightning()
    started = time.perf_counter()
    precision = _precision(config, device)
    circumstances = {"devices": devices, "precision": precision}
    last = _check_folder(config, out, circumstances)
    images_per_step = config.train.batch_size * config.train.accumulate * devices
    steps = total_steps(config, images_per_step)
    if last and last["mergevq"]["steps_done"] >= steps:
        logger.info("%s: all %d steps are done already", out, steps)
        # A run that was killed between its last two files has an older tokenizer beside its checkpoint.
        if not _is_current(out):
            save(load(out / LAST), out)
        return out
    seed_everything(config.train.seed, verbose=False)
    tokenizer = initial or _fresh(config)
    if device.channels_last():
        tokenizer = tokenizer.to(memory_format=torch.channels_last)
    module = TokenizerTraining(config, tokenizer, steps, images_per_step)
    module.circumstances = circumstances
    trainer = _trainer(config, out, device, devices, precision)
    if trainer.is_global_zero:
        _describe(config, out, device, devices, precision)
        _log_header(config, tokenizer, device, precision, steps, images_per_step)
    done = last["mergevq"]["steps_done"] if last else 0
    if done:
        logger.info("going on after step %d", done)
    loader = _train_loader(config, steps, done, trainer)
    trainer.fit(module, loader, ckpt_path=out / LAST if last else None, weights_only=True)
    if module.steps_done != steps:
        raise MergeVQError(
            f"the run ended after {module.steps_done} of {steps} steps; the same command goes on"
        )
    logger.info(
        "%d steps in %.0f s; the tokenizer is in %s", steps - done, time.perf_counter() - started, out
    )
    return out


def _trainer(config: TokenizerRun, out: Path, device: Device, devices: int, precision: str) -> Trainer:
    """Lightning's trainer for this device, with our checkpoints, log, validation and progress in place of its own."""
    images_per_step = config.train.batch_size * config.train.accumulate * devices
    log = CsvLog(out, config.train.log_every, images_per_step)
    validation = eval_loader(
        config.data,
        size=config.model.image_size,
        batch_size=config.train.batch_size,
        limit=config.train.validate_images,
    )
    return Trainer(
        **device.trainer_arguments(devices, precision),
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=1,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            Progress(images_per_step, config.train.log_every),
            log,
            Validation(out, log, validation, config.train.validate_every),
            StepCheckpoint(out, config.train.checkpoint_every),
        ],
        logger=_tensorboard(config, out),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )


def _fresh(config: TokenizerRun) -> Tokenizer:
    """Random weights, the attention blocks from a larger network where one is named."""
    tokenizer = Tokenizer(config.model)
    if config.train.blocks_from is not None:
        initialise_blocks(tokenizer.encoder.blocks, load_timm_blocks(config.train.blocks_from))
    return tokenizer


def _quieten_lightning() -> None:
    """Silences what Lightning says of things that are meant: advertisements, devices not asked for."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # The average and the self-teacher stay in evaluation mode, and Lightning lags behind PyTorch.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
    # Loaders are resumed by step, with as many workers as the configuration says.
    warnings.filterwarnings("ignore", message=r".*does not have many workers")
    warnings.filterwarnings("ignore", message=r".*mid-epoch", category=UserWarning)


def total_steps(config: TokenizerRun, images_per_step: int) -> int:
    """Optimiser steps of the run."""
    if config.train.steps is not None:
        return config.train.steps
    images = len(open_source(config.data.path, "train", config.data.holdout))
    return max(math.ceil(config.train.epochs * images / images_per_step), 1)


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


def _precision(config: TokenizerRun, device: Device) -> str:
    if config.train.precision != "auto":
        return config.train.precision
    return device.fast_precision()


def _check_folder(config: TokenizerRun, out: Path, circumstances: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one and its settings are these."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from error
    if not (out / LAST).exists():
        return None
    last = read_checkpoint(out / LAST)
    before = last.get("mergevq", {}).get("config")
    if not isinstance(before, dict):
        raise CheckpointError(f"{out / LAST} is not a checkpoint of a stage-1 run")
    changed = sorted(_differences(before, to_dict(config)) - _MAY_CHANGE)
    changed += sorted(_differences(last["mergevq"].get("circumstances"), circumstances))
    if changed:
        raise ConfigError(
            f"{out} holds a run with other settings ({', '.join(changed)}); repeat its settings to go on, "
            "or choose another --out"
        )
    return last


def _is_current(out: Path) -> bool:
    """Whether the tokenizer in the run folder is that of the last checkpoint."""
    try:
        present = load(out).state_dict()
    except CheckpointError:
        return False
    last = load(out / LAST).state_dict()
    return all(torch.equal(value, last[name]) for name, value in present.items())


def _differences(before: Any, now: Any, path: str = "") -> set[str]:
    """Dotted keys at which two configurations differ."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return set() if before == now else {path}
    names = {*before, *now}
    return set().union(
        *(_differences(before.get(name), now.get(name), f"{path}.{name}".lstrip(".")) for name in names)
    )


def _tensorboard(config: TokenizerRun, out: Path) -> Logger | bool:
    if not config.train.tensorboard:
        return False
    try:
        return TensorBoardLogger(out, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError("train.tensorboard needs tensorboard: pip install mergevq[tensorboard]") from error


def _describe(config: TokenizerRun, out: Path, device: Device, devices: int, precision: str) -> None:
    """Writes run.yaml and environment.json."""
    names = ("mergevq", "torch", "lightning", "timm", "numpy", "pillow")
    environment = {
        "command": sys.argv,
        "device": device.name,
        "devices": devices,
        "precision": precision,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    write_atomically(out / "run.yaml", lambda path: path.write_text(text))
    write_atomically(
        out / "environment.json", lambda path: path.write_text(json.dumps(environment, indent=2) + "\n")
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a distribution"


def _log_header(
    config: TokenizerRun, tokenizer: Tokenizer, device: Device, precision: str, steps: int, images: int
) -> None:
    counts = "  ".join(
        f"{name} {sum(weight.numel() for weight in part.parameters()) / 1e6:.2f}M"
        for name, part in tokenizer.named_children()
    )
    logger.info("device %s (%s), precision %s", device.name, device.probe().reason, precision)
    logger.info("%s: parameters %s", config.model.name, counts)
    logger.info(
        "%d positions, %d kept; %d steps of %d images",
        config.model.length,
        config.model.merge.keep,
        steps,
        images,
    )
