"""Stage 1 as a Lightning module: two optimisers, one step, everything that a resumed run needs.

In each pass the tokenizer's losses are taken with the discriminator frozen, then the discriminator's on
detached reconstructions: no gradient of one reaches the other, accumulated or not. The kept count comes
from a seeded generator whose state is in the checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mergevq.data.images.dataset import Batch
from mergevq.data.images.failures import FailureLog
from mergevq.data.images.transforms import to_float
from mergevq.models.store import save
from mergevq.models.tokenizer.tokenizer import Output, Tokenizer
from mergevq.training.engine.stepping import SteppedTraining, averaged_copy
from mergevq.training.tokenizer.adversarial import Critic
from mergevq.training.tokenizer.alignment import GlobalAlignment
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.tokenizer.kept import KeepSampler
from mergevq.training.tokenizer.objective import Objective


class TokenizerTraining(SteppedTraining):
    """Trains a tokenizer.

    Attributes:
        tokenizer: the weights that are trained.
    """

    config: TokenizerRun
    ema: Tokenizer
    product = "tokenizer"

    def __init__(self, config: TokenizerRun, tokenizer: Tokenizer, steps: int, global_batch: int):
        super().__init__(config, steps, global_batch)
        self.tokenizer = tokenizer
        self.ema = averaged_copy(tokenizer)
        self.objective = Objective(config.loss)
        self.critic = Critic(config.loss) if config.loss.adversarial else None
        aligned = config.alignment.kind != "none" and config.loss.alignment
        self.alignment = (
            GlobalAlignment(config.alignment, config.model, tokenizer.encoder) if aligned else None
        )
        self.keeps = KeepSampler(config.keep, config.model.merge.keep, config.train.seed)
        self.failures = FailureLog(config.data.max_failures)
        self._keep = 0
        self._targets: list[torch.Tensor] = []
        if config.train.compile:
            _compile(tokenizer, len(self.keeps.counts))

    @property
    def headline(self) -> tuple[str, str]:
        model = self.config.model
        return model.name, f"{model.length} positions, {model.merge.keep} kept"

    @property
    def of_each_pass(self) -> list[str]:
        loss = self.config.loss
        taken = {"codebook entropy": loss.entropy, "discriminator statistics": loss.adversarial}
        return [name for name, whether in taken.items() if whether]

    @property
    def trained(self) -> nn.Module:
        return self.tokenizer

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [*self.tokenizer.parameters()]
        if self.alignment is not None:
            trained += self.alignment.head.parameters()
        groups: list[list[nn.Parameter]] = [trained]
        if self.critic is not None:
            groups.append([*self.critic.discriminator.parameters()])
        return [self.adamw(group) for group in groups]

    def active_optimizers(self) -> list[Any]:
        """The tokenizer's, and once adversarial training has begun the discriminator's."""
        optimizers = super().active_optimizers()
        return optimizers if self._adversarial else optimizers[:1]

    def begin_step(self) -> None:
        """Draws the kept count of all passes."""
        self._keep = self.keeps.draw()
        self._targets = []

    def run_pass(self, batch: Batch) -> None:
        """Adds the gradients of both sides."""
        self.failures.update(batch.failures)
        self._names += batch.names
        self._generator_pass(batch)
        if self.critic is not None and self._adversarial:
            self._critic_pass(batch)

    @property
    def _adversarial(self) -> bool:
        return self.steps_done >= self.config.loss.adversarial_start

    def _generator_pass(self, batch: Batch) -> None:
        """Adds the gradient of the tokenizer's losses."""
        images = to_float(batch.images)
        output: Output = self.tokenizer(images, self._keep)
        terms = self.objective(output, images)
        total = self.objective.total(terms, self.steps_done / self.steps)
        if self.critic is not None and self._adversarial:
            last = self.tokenizer.decoder.out.weight
            weighted, shown = self.critic.generator_loss(output.images, self.objective.visible(terms), last)
            total = total + weighted
            terms |= shown
        if self.alignment is not None and batch.views is not None:
            loss, targets = self.alignment(self.tokenizer.encoder, to_float(batch.views), images)
            self._targets.append(targets.float().mean(0, keepdim=True))  # all that the centre needs: (1, P)
            total = total + self.config.loss.alignment * loss
            terms["alignment"] = loss
        self._fakes = output.images.detach()
        self.progress = {name: value.detach() for name, value in terms.items()}
        self.progress["loss"] = total.detach()
        self.add_gradient(total)

    def _critic_pass(self, batch: Batch) -> None:
        """Adds the gradient of the discriminator's losses."""
        assert self.critic is not None
        last = self._passes == self.config.train.accumulate - 1
        loss, shown = self.critic.discriminator_loss(to_float(batch.images), self._fakes, update=last)
        self.progress |= shown
        self.add_gradient(loss)

    def average(self) -> None:
        """Moves the average of the weights and the self-teacher."""
        super().average()
        if self.alignment is not None and self._targets:
            self.alignment.update(self.tokenizer.encoder, torch.cat(self._targets))

    def export(self, folder: Path) -> None:
        """Writes the averaged tokenizer."""
        save(self.ema, folder)

    def extra_state(self) -> dict[str, Any]:
        """The kept counts' generator, the broken pictures, the global random state."""
        return {
            "keeps": self.keeps.state_dict(),
            "failures": self.failures.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Takes them back."""
        self.keeps.load_state_dict(state["keeps"])
        self.failures.load_state_dict(state["failures"])
        torch.set_rng_state(state["rng"])


def _compile(tokenizer: Tokenizer, counts: int) -> None:
    """Compiles the tokenizer in place: one graph for each kept count."""
    # The adaptive weight goes backwards through the graph before the loss does.
    torch._functorch.config.donated_buffer = False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * counts)
    tokenizer.compile()
