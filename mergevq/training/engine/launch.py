"""Starting a run of any stage: its trainer, with our log, checkpoints and progress, and the way to its end."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from mergevq.backends import Device
from mergevq.errors import ConfigError, MergeVQError
from mergevq.training.engine.checkpoint import LAST, AtomicCheckpointIO, StepCheckpoint, steps_done
from mergevq.training.engine.config import PaceConfig
from mergevq.training.engine.monitor import CsvLog, Progress, Validation
from mergevq.training.engine.processes.cluster import node_count, started_by_srun
from mergevq.training.engine.processes.guard import DeviceGuard
from mergevq.training.engine.processes.lost_rank import lost_ranks_explained
from mergevq.training.engine.processes.precision import DevicePrecision
from mergevq.training.engine.processes.signals import EndsWhenTold, warn_of_foreign_checkpoints
from mergevq.training.engine.run_folder import describe
from mergevq.training.engine.stepping import SteppedTraining

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Where a run goes and what it runs on."""

    out: Path
    """The run folder."""
    device: Device
    devices: int
    """How many of them on each node."""
    nodes: int
    """Machines."""
    precision: str
    """"32" or "bf16"."""
    pace: PaceConfig
    circumstances: dict[str, Any]
    """What decides the weights beside the configuration."""
    listings: dict[str, Any]
    """What it is trained and validated on, by name and label."""

    @property
    def ranks(self) -> int:
        """Devices on all nodes, one process each."""
        return self.devices * self.nodes

    @property
    def images_per_step(self) -> int:
        """The global batch of an optimiser step."""
        return self.pace.batch_size * self.pace.accumulate * self.ranks


def prepare(
    pace: PaceConfig,
    out: Path,
    device: Device,
    devices: int,
    content: Mapping[str, str] | None = None,
    listings: Mapping[str, Any] | None = None,
) -> Launch:
    """The launch of a run; quietens Lightning.

    Args:
        pace: the run's; decides the precision.
        out: the run folder.
        device: what it runs on.
        devices: how many of them on each node; torchrun or SLURM say how many nodes there are.
        content: hashes of what is at the paths that the configuration names.
        listings: what it is trained and validated on, by name and label.

    Raises:
        UsageError: torchrun or SLURM started another number of processes than there are devices.
    """
    _quieten_lightning()
    nodes = node_count(devices)
    precision = device.fast_precision() if pace.precision == "auto" else pace.precision
    return Launch(
        out=out,
        device=device,
        devices=devices,
        nodes=nodes,
        precision=precision,
        pace=pace,
        circumstances={"devices": devices * nodes, "precision": precision, **(content or {})},
        listings=dict(listings or {}),
    )


def planned_steps(pace: PaceConfig, images_per_step: int, images: Callable[[], int]) -> int:
    """Optimiser steps of a run; `images` counts the data where epochs are to be turned into steps."""
    if pace.steps is not None:
        return pace.steps
    return max(math.ceil(pace.epochs * images() / images_per_step), 1)


def train(
    config: Any,
    module: SteppedTraining,
    launch: Launch,
    last: dict[str, Any] | None,
    *,
    validation: Callable[[CsvLog], Validation],
    loader: Callable[[Trainer], Any],
) -> None:
    """Trains to the last step, from the first or from a checkpoint.

    Args:
        config: the run's, for run.yaml.
        module: what is trained.
        launch: the run.
        last: the checkpoint to go on from.
        validation: makes the stage's validation, given the log that it writes to.
        loader: makes the batches of this rank from the first step that is left.

    Raises:
        StoppedError: a signal ended the run.
        MergeVQError: Lightning ended early.
    """
    started, done = time.perf_counter(), steps_done(last)
    module.circumstances, module.listings = launch.circumstances, launch.listings
    module.runs_on = launch.device
    checkpoint = StepCheckpoint(launch.out, launch.pace.checkpoint_every)
    told = EndsWhenTold(checkpoint)
    trainer = _trainer(launch, validation, [checkpoint, told])
    if trainer.is_global_zero:
        describe(config, launch.out, launch.device, launch.circumstances)
        warn_of_foreign_checkpoints(launch.out)
        _log_header(launch, module)
    if done:
        logger.info("going on after step %d", done)
    with lost_ranks_explained(), told.listening():
        trainer.fit(module, loader(trainer), ckpt_path=launch.out / LAST if last else None, weights_only=True)
    if module.steps_done != module.steps:
        raise MergeVQError(
            f"the run ended after {module.steps_done} of {module.steps} steps; the same command goes on"
        )
    seconds = time.perf_counter() - started
    logger.info(
        "%d steps in %.0f s; the %s is in %s", module.steps - done, seconds, module.product, launch.out
    )


def _trainer(launch: Launch, validation: Callable[[CsvLog], Validation], last: list[Callback]) -> Trainer:
    """Lightning's trainer for this device, our checkpoints, log, validation and progress in place of its own."""
    pace = launch.pace
    log = CsvLog(launch.out, pace.log_every, launch.images_per_step)
    # How many ranks there are decides the strategy: one device on each of two nodes needs DDP too.
    hardware = launch.device.trainer_arguments(launch.ranks, launch.precision)
    hardware |= {"devices": launch.devices, "num_nodes": launch.nodes}
    return Trainer(
        **hardware,
        max_epochs=1,
        plugins=[
            AtomicCheckpointIO(),
            DevicePrecision(launch.device, launch.precision),
            *([SLURMEnvironment(auto_requeue=False)] if started_by_srun() else []),
        ],
        callbacks=[
            DeviceGuard(launch.device, launch.precision),
            Progress(launch.images_per_step, pace.log_every),
            log,
            validation(log),
            *last,
        ],
        logger=_tensorboard(launch),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # Under SLURM Lightning goes on from whatever hpc_ckpt_1.ckpt it finds here, instead of beginning.
        default_root_dir=launch.out / LAST.parent,
    )


def _log_header(launch: Launch, module: SteppedTraining) -> None:
    """What runs on what, how many parameters each part has, and how long it goes on."""
    counts = "  ".join(
        f"{name} {sum(weight.numel() for weight in part.parameters()) / 1e6:.2f}M"
        for name, part in module.trained.named_children()
    )
    device = launch.device
    logger.info("device %s (%s), precision %s", device.name, device.probe().reason, launch.precision)
    logger.info("%s: parameters %s", module.headline[0], counts)
    logger.info("%s; %d steps of %d images", module.headline[1], module.steps, launch.images_per_step)
    if launch.pace.accumulate > 1 and module.of_each_pass:
        logger.info(
            "%d passes a step, each with its own %s: not the same run as one pass of as many images",
            launch.pace.accumulate,
            " and ".join(module.of_each_pass),
        )


def _tensorboard(launch: Launch) -> Logger | bool:
    if not launch.pace.tensorboard:
        return False
    try:
        return TensorBoardLogger(launch.out, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise ConfigError("train.tensorboard needs tensorboard: pip install mergevq[tensorboard]") from error


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
