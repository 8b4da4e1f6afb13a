"""What every stage's training has in common: counting optimiser steps, averaging, stopping, resuming.

An optimiser step is `accumulate` passes, each of which adds its gradient. The learning rate is a function of
the step count, and so is the order of the data: with the state that a checkpoint holds, a run that was
killed continues with the numbers that it would have had.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import nn

from mergevq.backends import Device
from mergevq.config import to_dict
from mergevq.errors import NonFiniteError
from mergevq.models.frozen import freeze
from mergevq.training.engine.config import OptimizerConfig, PaceConfig
from mergevq.training.engine.random_state import random_state, restore_random_state
from mergevq.training.engine.schedules import average_decay, rate_factor

ModuleT = TypeVar("ModuleT", bound=nn.Module)
RATE_BATCH = 256
"""The global batch that `optimizer.rate` is meant for."""


class Run(Protocol):
    """The groups that the configuration of every stage has."""

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def train(self) -> PaceConfig: ...


class SteppedTraining(LightningModule):
    """Trains one network in steps of several passes; subclasses say what a pass is.

    Attributes:
        ema: the average of the network's weights, which is evaluated and exported.
        product: what the run makes, in a word.
        steps: optimiser steps of the whole run.
        steps_done: optimiser steps so far.
        circumstances: what else decides the weights: number of devices, precision; kept in the checkpoint.
        listings: what it is trained and validated on, by name and label; kept in the checkpoint.
        runs_on: the device, whose random state is in the checkpoint; None outside a run.
        progress: the latest step's losses by name, detached.
    """

    ema: nn.Module
    product = "model"

    def __init__(self, config: Run, steps: int, global_batch: int):
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.steps = steps
        self.base_rate = config.optimizer.rate * global_batch / RATE_BATCH
        self.steps_done = 0
        self.circumstances: dict[str, Any] = {}
        self.listings: dict[str, Any] = {}
        self.runs_on: Device | None = None
        self.progress: dict[str, torch.Tensor] = {}
        self._passes = 0
        self._names: list[str] = []
        self._losses: list[torch.Tensor] = []

    @property
    def headline(self) -> tuple[str, str]:
        """For the head of the log: the model's name, and what it works on."""
        raise NotImplementedError

    @property
    def of_each_pass(self) -> list[str]:
        """What is taken over a pass and not over a step: with any, accumulated passes are not one larger pass."""
        return []

    @property
    def trained(self) -> nn.Module:
        """The network whose average is `ema`."""
        raise NotImplementedError

    def begin_step(self) -> None:
        """Prepares for the passes of a step."""

    def run_pass(self, batch: Any) -> None:
        """Adds the gradient of a batch."""
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        """Writes what the run makes, with the averaged weights, for `mergevq.load`."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """What a resumed run needs beyond weights, optimisers and the step; plain values and tensors."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes it back."""

    def active_optimizers(self) -> list[Any]:
        """The optimisers that move at this step, as Lightning wraps them."""
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def adamw(self, parameters: list[Any]) -> torch.optim.Optimizer:
        """AdamW as configured, for parameters or groups of them."""
        config = self.config.optimizer
        first, second = config.betas
        return torch.optim.AdamW(
            parameters, lr=self.base_rate, betas=(first, second), weight_decay=config.weight_decay, fused=True
        )

    @property
    def at_step_end(self) -> bool:
        """Whether the pass that has just ended was the last one of an optimiser step."""
        return self._passes == 0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One pass; the last of `accumulate` also steps."""
        if self._passes == 0:
            self._names, self._losses = [], []
            self.begin_step()
        self.run_pass(batch)
        self._passes += 1
        if self._passes == self.config.train.accumulate:
            self._passes = 0
            self._step()

    def add_gradient(self, loss: torch.Tensor) -> None:
        """Goes backwards through the loss of a pass; the step will check whether it was finite."""
        self._losses.append(loss.detach())
        self.manual_backward(loss / self.config.train.accumulate)

    def average(self) -> None:
        """Moves the averages after a step of the optimisers."""
        decay = average_decay(self.config.optimizer.ema, self.steps_done)
        with torch.no_grad():
            torch._foreach_lerp_([*self.ema.parameters()], [*self.trained.parameters()], 1 - decay)

    def _step(self) -> None:
        """Steps the optimisers, unless a loss or a gradient is not finite, and moves the averages."""
        active = self.active_optimizers()
        rate = self.base_rate * rate_factor(self.config.optimizer, self.steps_done, self.steps)
        limit = self.config.optimizer.clip
        norms = []
        for optimizer in active:
            parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
            norms.append(nn.utils.clip_grad_norm_(parameters, limit or float("inf"), foreach=True))
        # The one time in a step that the host waits for the device.
        if not torch.stack([*self._losses, *norms]).isfinite().all():
            raise self._not_finite()
        for optimizer in active:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress["gradient_norm"] = norms[0]
        self.average()
        self.steps_done += 1

    def _not_finite(self) -> NonFiniteError:
        shown = ", ".join(f"{name} {float(loss):.3g}" for name, loss in self.progress.items())
        batch = f". The batch was: {', '.join(self._names)}" if self._names else ""
        return NonFiniteError(
            f"the loss or its gradient is not finite at step {self.steps_done} ({shown}); the weights are "
            f"those of the step before{batch}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not know of; plain values and tensors only."""
        checkpoint["mergevq"] = {
            "config": to_dict(self.config),
            "circumstances": self.circumstances,
            "data": self.listings,
            "steps_done": self.steps_done,
            "device_rng": random_state(self.runs_on),
            **self.extra_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""
        # Lightning's own count of batches would end the epoch early: the loader begins where the run stopped.
        checkpoint.pop("loops", None)
        state = checkpoint["mergevq"]
        self.steps_done = state["steps_done"]
        restore_random_state(self.runs_on, state.get("device_rng"))
        self.load_extra_state(state)


def averaged_copy(network: ModuleT) -> ModuleT:
    """A copy to average the weights in, which asks for no gradient."""
    return freeze(copy.deepcopy(network))
