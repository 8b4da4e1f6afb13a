"""What a run does when it is told to end: SIGTERM, and SIGUSR1, by which SLURM announces the end of its time.

A signal interrupts no step. It is noted, and when the step at hand is done, all processes of the run learn whether
any of them has been told; then the checkpoint is written, and the run ends with 128 + the signal's number.
Lightning's own handlers give way to this: after SIGTERM it ends with 0, maybe in the middle of a step, and for
SIGUSR1 it writes a checkpoint of its own, at whatever the process is doing.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mergevq.errors import MergeVQError, StoppedError
from mergevq.training.engine.checkpoint import LAST, StepCheckpoint
from mergevq.training.engine.processes.cluster import started_by_srun
from mergevq.training.engine.stepping import SteppedTraining

logger = logging.getLogger(__name__)


class EndsWhenTold(Callback):
    """Notes signals, and ends the run at the end of a step.

    Args:
        checkpoint: writes it.
    """

    def __init__(self, checkpoint: StepCheckpoint):
        self._checkpoint = checkpoint
        self._told = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context signals are noted; afterwards they do what they did before."""
        before = {number: signal.getsignal(number) for number in _signals()}
        self._listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
            _let_through(True)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Holds signals back until Lightning has put in its own handlers and these have taken their place."""
        _let_through(False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes their place."""
        self._listen()
        _let_through(True)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Ends the run where a process of it has been told to; a run that has made its last step is done anyway.

        Raises:
            StoppedError: on the first process; the others end without a word.
        """
        assert isinstance(module, SteppedTraining)
        if not module.at_step_end or module.steps_done == module.steps:
            return
        told = torch.tensor(self._told, device=trainer.strategy.root_device)
        number = int(trainer.strategy.reduce(told, reduce_op="max"))
        if number:
            self._end(trainer, module, signal.Signals(number))

    def _listen(self) -> None:
        for number in _signals():
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._told = max(self._told, number)

    def _end(self, trainer: Trainer, module: SteppedTraining, number: signal.Signals) -> None:
        saved = self._save(trainer, module)
        if not trainer.is_global_zero:
            # Lightning kills the first process where one that it started fails; the first one speaks for all.
            raise SystemExit(128 + number if _started_from_outside(trainer) else 0)
        requeued = f"; {requeue()}" if number == signal.Signals.SIGUSR1 else ""
        raise StoppedError(
            f"ended by {number.name} after step {module.steps_done} of {module.steps}: {saved}{requeued}",
            number,
        )

    def _save(self, trainer: Trainer, module: SteppedTraining) -> str:
        """Writes the checkpoint; says what became of it."""
        last = self._checkpoint.folder / LAST
        try:
            self._checkpoint.save(trainer, module)
        except MergeVQError as error:
            return f"{error}; the same command goes on from the last checkpoint, if there is one"
        trainer.strategy.barrier()  # a launcher may kill the rest as soon as one of them is gone
        return f"{last} holds it, and the same command goes on from there"


def requeue() -> str:
    """Puts this SLURM job into the queue again; returns what came of it, in words."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"SLURM's job {job} is not queued again: scontrol: {error.strerror}"
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"scontrol ended with {done.returncode}"
        return f"SLURM's job {job} is not queued again: {reason}"
    return f"SLURM's job {job} is queued again"


def warn_of_foreign_checkpoints(out: Path) -> None:
    """Says that what Lightning once left in the run folder is not gone on from."""
    for path in sorted(out.glob("hpc_ckpt_*.ckpt")):
        logger.warning(
            "%s was written by Lightning, maybe in the middle of a step; it is not used, and may be deleted",
            path,
        )


def _signals() -> list[signal.Signals]:
    """Those that are listened to; none outside the main thread, where Python lets nobody listen."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.SIGTERM, signal.SIGUSR1] if started_by_srun() else [signal.SIGTERM]


def _let_through(now: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK if now else signal.SIG_BLOCK, _signals())


def _started_from_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is None or bool(environment.creates_processes_externally)
