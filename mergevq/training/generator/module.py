"""Stage 2 as a Lightning module: a generator over the tokens of a frozen tokenizer.

What is drawn in a pass (classes and activations to drop, the orders of rand_ar) comes from seeds that are a
function of the run's seed, the number of the pass and the rank. So there is no random state to save, ranks
draw differently, and a resumed run draws what an unbroken one would have, on any device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mergevq.generation.pipeline import ImageGenerator
from mergevq.generation.store import save, save_model
from mergevq.models.frozen import Frozen
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import TokenBatch
from mergevq.training.engine.stepping import SteppedTraining, averaged_copy
from mergevq.training.generator.config import GeneratorRun


class GeneratorTraining(SteppedTraining):
    """Trains a generator.

    Attributes:
        model: the weights that are trained.
        tokenizer: the frozen tokenizer, which is in no checkpoint.
    """

    config: GeneratorRun
    ema: Generator
    product = "generator"

    def __init__(
        self, config: GeneratorRun, model: Generator, tokenizer: Tokenizer, steps: int, global_batch: int
    ):
        super().__init__(config, steps, global_batch)
        self.model = model
        self.ema = averaged_copy(model)
        self.tokenizer = Frozen(tokenizer)
        self._loss = torch.compile(model.loss) if config.train.compile else model.loss
        self._tokenizer_saved = False
        # All ranks have the same buffers, which never change: DDP need not send them at every pass.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    @property
    def headline(self) -> tuple[str, str]:
        model = self.config.model
        counts = ", ".join(map(str, model.counts))
        return (
            f"{model.name} {model.kind}",
            f"{model.length} positions, {counts} kept, {model.classes} classes",
        )

    @property
    def of_each_pass(self) -> list[str]:
        return ["random draws"]

    @property
    def trained(self) -> nn.Module:
        return self.model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw(decay_groups(self.model))

    def run_pass(self, batch: TokenBatch) -> None:
        """Adds the gradient of the cross-entropy."""
        number = self.steps_done * self.config.train.accumulate + self._passes
        activations, orders = pass_seeds(self.config.train.seed, number, self.global_rank)
        torch.manual_seed(activations)
        rng = torch.Generator().manual_seed(orders)
        terms = self._loss(batch, rng, self.config.loss.label_smoothing)
        self.progress = {name: value.detach() for name, value in terms.items()}
        self.add_gradient(terms["loss"])

    def export(self, folder: Path) -> None:
        """Writes the averaged generator, and once its tokenizer."""
        tokenizer = self.tokenizer.network
        assert isinstance(tokenizer, Tokenizer)
        if self._tokenizer_saved:
            save_model(self.ema, fingerprint(tokenizer), folder)
        else:
            save(ImageGenerator(self.ema, tokenizer), folder)
        self._tokenizer_saved = True


def decay_groups(model: nn.Module) -> list[dict[str, object]]:
    """Matrices and tables, whose weights decay, and the gains and vectors, which do not.

    Source: LlamaGen (arXiv:2406.06525), Section 3.1, as its released code has it.
    """
    parameters = [*model.parameters()]
    return [
        {"params": [weight for weight in parameters if weight.dim() >= 2]},
        {"params": [weight for weight in parameters if weight.dim() < 2], "weight_decay": 0.0},
    ]


def pass_seeds(seed: int, number: int, rank: int) -> tuple[int, int]:
    """Two independent seeds for what a pass draws.

    Args:
        seed: the run's.
        number: of the pass, from 0.
        rank: this process.
    """
    state = np.random.SeedSequence((seed % 2**64, number, rank)).generate_state(2, np.uint64)
    return int(state[0]), int(state[1])
