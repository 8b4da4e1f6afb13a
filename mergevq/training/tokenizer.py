"""Stage 1 as a Lightning module: two optimisers, one step, everything that a resumed run needs.

An optimiser step is `accumulate` passes. In each, the tokenizer's losses are taken with the
discriminator frozen, then the discriminator's on detached reconstructions: no gradient of one reaches
the other, accumulated or not. The learning rate is a function of the step count, the kept count comes
from a seeded generator, and the order of the data from the step: with the state saved here, a run
that was killed continues with the numbers that it would have had.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from mergevq.config import to_dict
from mergevq.data.dataset import Batch
from mergevq.data.failures import FailureLog
from mergevq.data.transforms import to_float
from mergevq.errors import NonFiniteError
from mergevq.models.tokenizer import Output, Tokenizer
from mergevq.training.adversarial import Critic
from mergevq.training.alignment import GlobalAlignment
from mergevq.training.config import TokenizerRun
from mergevq.training.objective import Objective
from mergevq.training.schedules import KeepSampler, average_decay, rate_factor


class TokenizerTraining(LightningModule):
    """Trains a tokenizer.

    Attributes:
        tokenizer: the weights that are trained.
        ema: their average, which is evaluated and saved.
        steps_done: optimiser steps so far.
        circumstances: what else decides the weights: number of devices, precision; kept in the checkpoint.
        progress: the latest step's losses by name, detached.
    """

    def __init__(self, config: TokenizerRun, tokenizer: Tokenizer, steps: int, global_batch: int):
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.steps = steps
        self.base_rate = config.optimizer.rate * global_batch / 256
        self.tokenizer = tokenizer
        self.ema = copy.deepcopy(tokenizer).requires_grad_(False).eval()
        self.objective = Objective(config.loss)
        self.critic = Critic(config.loss) if config.loss.adversarial else None
        aligned = config.alignment.kind != "none" and config.loss.alignment
        self.alignment = (
            GlobalAlignment(config.alignment, config.model, tokenizer.encoder) if aligned else None
        )
        self.keeps = KeepSampler(config.keep, config.model.merge.keep, config.train.seed)
        self.failures = FailureLog(config.data.max_failures)
        self.steps_done = 0
        self.circumstances: dict[str, Any] = {}
        self.progress: dict[str, torch.Tensor] = {}
        self._passes = 0
        self._names: list[str] = []
        self._keep = 0
        self._targets: torch.Tensor | None = None
        if config.train.compile:
            _compile(tokenizer, len(self.keeps.counts))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [*self.tokenizer.parameters()]
        if self.alignment is not None:
            trained += self.alignment.head.parameters()
        groups: list[list[nn.Parameter]] = [trained]
        if self.critic is not None:
            groups.append([*self.critic.discriminator.parameters()])
        return [self._optimizer(group) for group in groups]

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        config = self.config.optimizer
        first, second = config.betas
        return torch.optim.AdamW(
            parameters, lr=self.base_rate, betas=(first, second), weight_decay=config.weight_decay, fused=True
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One pass; the last of `accumulate` also steps both optimisers."""
        self.failures.update(batch.failures)
        if self._passes == 0:
            self._keep = self.keeps.draw()
            self._names = []
        self._names += batch.names
        self._generator_pass(batch)
        if self.critic is not None and self._adversarial:
            self._critic_pass(batch)
        self._passes += 1
        if self._passes == self.config.train.accumulate:
            self._passes = 0
            self._step()

    @property
    def at_step_end(self) -> bool:
        """Whether the pass that has just ended was the last one of an optimiser step."""
        return self._passes == 0

    @property
    def _adversarial(self) -> bool:
        return self.steps_done >= self.config.loss.adversarial_start

    def _generator_pass(self, batch: Batch) -> None:
        """Adds the gradient of the tokenizer's losses."""
        images = to_float(batch.images)
        output: Output = self.tokenizer(images, self._keep)
        terms = self.objective(output, images)
        total = self.objective.total(terms)
        if self.critic is not None and self._adversarial:
            last = self.tokenizer.decoder.out.weight
            weighted, shown = self.critic.generator_loss(output.images, self.objective.visible(terms), last)
            total = total + weighted
            terms |= shown
        if self.alignment is not None and batch.views is not None:
            loss, self._targets = self.alignment(self.tokenizer.encoder, to_float(batch.views), images)
            total = total + self.config.loss.alignment * loss
            terms["alignment"] = loss
        self._fakes = output.images.detach()
        self.progress = {name: value.detach() for name, value in terms.items()}
        self.progress["loss"] = total.detach()
        self._check_finite(total)
        self.manual_backward(total / self.config.train.accumulate)

    def _critic_pass(self, batch: Batch) -> None:
        """Adds the gradient of the discriminator's losses."""
        assert self.critic is not None
        last = self._passes == self.config.train.accumulate - 1
        loss, shown = self.critic.discriminator_loss(to_float(batch.images), self._fakes, update=last)
        self.progress |= shown
        self._check_finite(loss)
        self.manual_backward(loss / self.config.train.accumulate)

    def _step(self) -> None:
        """Steps both optimisers, unless a gradient is not finite, and moves the averages."""
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        active = optimizers if self._adversarial else optimizers[:1]
        rate = self.base_rate * rate_factor(self.config.optimizer, self.steps_done, self.steps)
        limit = self.config.optimizer.clip
        norms = []
        for optimizer in active:
            parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
            norms.append(nn.utils.clip_grad_norm_(parameters, limit or float("inf"), foreach=True))
        self._check_finite(torch.stack(norms).sum())
        for optimizer in active:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress["gradient_norm"] = norms[0]
        self._average()
        self.steps_done += 1

    @torch.no_grad()
    def _average(self) -> None:
        decay = average_decay(self.config.optimizer.ema, self.steps_done)
        torch._foreach_lerp_([*self.ema.parameters()], [*self.tokenizer.parameters()], 1 - decay)
        if self.alignment is not None and self._targets is not None:
            self.alignment.update(self.tokenizer.encoder, self._targets)

    def _check_finite(self, value: torch.Tensor) -> None:
        if not torch.isfinite(value):
            shown = ", ".join(f"{name} {float(loss):.3g}" for name, loss in self.progress.items())
            raise NonFiniteError(
                f"the loss or its gradient is not finite at step {self.steps_done} ({shown}); the weights are "
                f"those of the step before. The batch was: {', '.join(self._names)}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not know of; plain values and tensors only."""
        checkpoint["mergevq"] = {
            "config": to_dict(self.config),
            "circumstances": self.circumstances,
            "steps_done": self.steps_done,
            "keeps": self.keeps.state_dict(),
            "failures": self.failures.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""
        # Lightning's own count of batches would end the epoch early: the loader begins where the run stopped.
        checkpoint.pop("loops", None)
        state = checkpoint["mergevq"]
        self.steps_done = state["steps_done"]
        self.keeps.load_state_dict(state["keeps"])
        self.failures.load_state_dict(state["failures"])
        torch.set_rng_state(state["rng"])


def _compile(tokenizer: Tokenizer, counts: int) -> None:
    """Compiles the tokenizer in place: one graph for each kept count."""
    # The adaptive weight goes backwards through the graph before the loss does.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * counts)
    tokenizer.compile()
