"""What a run of any stage shows while it goes on: a progress bar, a log, validation."""

from __future__ import annotations

import csv
import logging
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from mergevq.training.engine.stepping import SteppedTraining

logger = logging.getLogger(__name__)

_SHOWN = ("loss", "reconstruction", "accuracy", "source_accuracy")


class Progress(Callback):
    """A bar on a terminal, a line now and then elsewhere, with images a second over all ranks."""

    def __init__(self, images_per_step: int, every: int):
        self.images_per_step = images_per_step
        self.every = every

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, SteppedTraining)
        self._bar = tqdm(
            total=module.steps,
            initial=module.steps_done,
            unit="step",
            disable=not (trainer.is_global_zero and sys.stderr and sys.stderr.isatty()),
        )
        self._rate = Throughput(self.images_per_step)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, SteppedTraining)
        if not module.at_step_end:
            return
        self._rate.step()
        self._bar.update()
        if module.steps_done % self.every and module.steps_done != module.steps:
            return
        shown = {name: f"{float(module.progress[name]):.4f}" for name in _SHOWN if name in module.progress}
        shown["img/s"] = f"{self._rate.images_per_second:.1f}"
        self._bar.set_postfix(shown)
        if trainer.is_global_zero and self._bar.disable:
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            logger.info("step %d/%d  %s", module.steps_done, module.steps, text)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()


class Throughput:
    """Images a second since the last time that it was read."""

    def __init__(self, images_per_step: int):
        self.images_per_step = images_per_step
        self._steps = 0
        self._since = time.perf_counter()

    def step(self) -> None:
        """Counts one optimiser step."""
        self._steps += 1

    @property
    def images_per_second(self) -> float:
        """The rate since the last reading; starts counting anew."""
        now = time.perf_counter()
        rate = self._steps * self.images_per_step / max(now - self._since, 1e-9)
        self._steps, self._since = 0, now
        return rate


class CsvLog(Callback):
    """`log.csv` in the run folder: one line every so many steps, resumed runs without doubled lines."""

    def __init__(self, folder: Path, every: int, images_per_step: int):
        self.path = folder / "log.csv"
        self.every = every
        self._rate = Throughput(images_per_step)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, SteppedTraining)
        if trainer.is_global_zero and self.path.exists():
            kept = [row for row in self._rows() if int(row["step"]) <= module.steps_done]
            self._write(kept)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, SteppedTraining)
        if not module.at_step_end:
            return
        self._rate.step()
        if trainer.is_global_zero and module.steps_done % self.every == 0:
            values = {name: float(value) for name, value in module.progress.items()}
            self.append(module.steps_done, {**values, "images_per_second": self._rate.images_per_second})
            for log in trainer.loggers:
                log.log_metrics(values, module.steps_done)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Adds a line; columns that are new to the file make it be written anew."""
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        known = self._columns()
        if set(row) <= set(known):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, known).writerow(row)
        else:
            self._write([*self._rows(), row])

    def _columns(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return next(csv.reader(file), [])

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _write(self, rows: list[dict[str, str]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


class Validation(Callback):
    """Measures the averaged weights every so many steps and at the end; subclasses say what.

    A callback and not Lightning's validation loop: it counts optimiser steps, of which Lightning may count
    several for each of ours, and a resumed run validates at the very steps of an unbroken one.
    """

    def __init__(self, folder: Path, log: CsvLog, every: int):
        self.folder = folder
        self.csv_log = log
        self.every = every

    def measure(self, module: Any) -> dict[str, float]:
        """The numbers for the log; those that cannot be measured are left out."""
        raise NotImplementedError

    def picture_path(self, module: SteppedTraining) -> Path:
        """Where the picture of this step goes."""
        return self.folder / "pictures" / f"step-{module.steps_done:07d}.png"

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, SteppedTraining)
        due = module.steps_done % self.every == 0 or module.steps_done == module.steps
        if not (module.at_step_end and due and trainer.is_global_zero):
            return
        values = self.measure(module)
        if not values:
            return
        logger.info("validation  %s", "  ".join(f"{name} {value:.3f}" for name, value in values.items()))
        self.csv_log.append(module.steps_done, {f"val_{name}": value for name, value in values.items()})
        for log in trainer.loggers:
            log.log_metrics({f"val/{name}": value for name, value in values.items()}, module.steps_done)
