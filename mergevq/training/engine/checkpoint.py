"""Checkpoints that are whole or not there, written by optimiser step.

`checkpoints/last.ckpt` holds everything that a resumed run needs. Beside it in the run folder stand
`config.json` and `model.safetensors` with the averaged weights: `mergevq.load(run)` works at any time.
All tensors are saved on the CPU, so that a run goes on, or is looked at, on another type of device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer

from mergevq.models.store import read_checkpoint, write_atomically
from mergevq.training.engine.stepping import SteppedTraining

LAST = Path("checkpoints") / "last.ckpt"


def steps_done(checkpoint: dict[str, Any] | None) -> int:
    """The optimiser steps behind a checkpoint; 0 without one."""
    return int(checkpoint["mergevq"]["steps_done"]) if checkpoint else 0


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to another name, then renames; reads tensors and plain values only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint, its tensors as CPU tensors: those of another device may not load without it.

        Raises:
            OutputError: it cannot be written; the one before is still there.
        """
        portable = move_data_to_device(checkpoint, torch.device("cpu"))
        write_atomically(Path(path), lambda temporary: _save(portable, temporary))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads a checkpoint onto the CPU; Lightning moves it.

        Raises:
            CheckpointError: it is truncated, or holds more than tensors and plain values.
        """
        return read_checkpoint(Path(path))


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:  # what torch.save makes of a full disk; the reason is in the context
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


class StepCheckpoint(Callback):
    """Saves every so many optimiser steps, and at the end."""

    def __init__(self, folder: Path, every: int):
        self.folder = folder
        self.every = every
        self._saved = -1

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, SteppedTraining)
        if module.at_step_end and module.steps_done % self.every == 0:
            self.save(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, SteppedTraining)
        self.save(trainer, module)

    def save(self, trainer: Trainer, module: SteppedTraining) -> None:
        """Saves, unless this step has been saved already; all processes of a run together."""
        if self._saved == module.steps_done:
            return
        trainer.save_checkpoint(self.folder / LAST)
        if trainer.is_global_zero:
            module.export(self.folder)
        self._saved = module.steps_done
