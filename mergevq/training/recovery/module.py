"""Fine-tuning of source recovery alone, on codes such as a generator makes: some of them are wrong.

Legend: B batch, K kept tokens, Kmax the largest count in a batch, L positions, d code bits.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mergevq.backends import codes_of
from mergevq.data.tokens.splits import TokenRows
from mergevq.losses.source import source_accuracy, source_loss
from mergevq.models.frozen import Frozen
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.store import save
from mergevq.models.tokenizer.recovery import SourceRecovery
from mergevq.models.tokenizer.source_map import most_likely_source
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import TokenBatch
from mergevq.training.engine.config import PaceConfig
from mergevq.training.engine.stepping import SteppedTraining, averaged_copy
from mergevq.training.generator.module import pass_seeds
from mergevq.training.recovery.config import RecoveryRun
from mergevq.training.recovery.corruption import Corruption


class RecoveryTraining(SteppedTraining):
    """Trains the source recovery of a tokenizer, the rest of which stays as it is.

    Attributes:
        recovery: the weights that are trained.
        tokenizer: what they came from, frozen and in no checkpoint.
    """

    config: RecoveryRun
    ema: SourceRecovery
    product = "tokenizer"

    def __init__(
        self,
        config: RecoveryRun,
        tokenizer: Tokenizer,
        generator: Generator | None,
        steps: int,
        global_batch: int,
    ):
        super().__init__(config, steps, global_batch)
        self.recovery = copy.deepcopy(tokenizer.recovery).requires_grad_(True).train()
        self.ema = averaged_copy(self.recovery)
        self.corruption = Corruption(config.corruption, tokenizer.config.quantizer.bits, generator)
        self.tokenizer = Frozen(tokenizer)
        self.name = tokenizer.config.name
        self.grid = (tokenizer.config.grid, tokenizer.config.grid)
        self._recover = torch.compile(self.recovery) if config.train.compile else self.recovery

    @property
    def headline(self) -> tuple[str, str]:
        source = "random bits" if self.corruption.generator is None else "samples of the generator"
        return self.name, f"up to {self.config.corruption.share:.0%} of the codes are {source}"

    @property
    def of_each_pass(self) -> list[str]:
        return ["random draws"]

    @property
    def trained(self) -> nn.Module:
        return self.recovery

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adamw([*self.recovery.parameters()])

    def run_pass(self, batch: TokenBatch) -> None:
        """Adds the gradient of the source loss on corrupted tokens."""
        number = self.steps_done * self.config.train.accumulate + self._passes
        seed, _ = pass_seeds(self.config.train.seed, number, self.global_rank)
        corrupted = self.corruption(batch, torch.Generator().manual_seed(seed))
        loss = torch.zeros((), device=self.device)
        accuracy = torch.zeros((), device=self.device)
        for part in by_count(corrupted):
            share = len(part.labels) / len(batch.labels)
            logits = self._recover(codes_of(part.indices, self.corruption.bits), self.grid)
            loss = loss + share * source_loss(logits, part.source, self.config.loss.source_kind)
            accuracy = accuracy + share * source_accuracy(logits.detach(), part.source)
        self.progress = {"loss": loss.detach(), "source_accuracy": accuracy}
        self.add_gradient(loss)

    def export(self, folder: Path) -> None:
        """Writes the tokenizer with the averaged recovery."""
        save(with_recovery(self.tokenizer.network, self.ema.state_dict()), folder)


def by_count(batch: TokenBatch) -> list[TokenBatch]:
    """The rows of each kept count, without padding."""
    parts = []
    counts = batch.keep.tolist()  # the host waits for the device here, and nowhere below
    for keep in sorted(set(counts)):
        rows = [row for row, count in enumerate(counts) if count == keep]
        part = TokenBatch(*(values[rows] for values in batch))
        parts.append(part._replace(indices=part.indices[:, :keep]))
    return parts


@torch.no_grad()
def recovery_accuracy(
    recovery: SourceRecovery, rows: TokenRows, corruption: Corruption, grid: tuple[int, int], pace: PaceConfig
) -> dict[str, float]:
    """The share of positions whose most likely token is the true one, from true and from corrupted codes.

    Args:
        recovery: in evaluation mode.
        rows: held-out tokens, of which `pace.validate_images` are looked at.
        corruption: the same codes are replaced in every call.
        grid: (h, w).
        pace: of the run.
    """
    device = recovery.queries.device
    rng = torch.Generator().manual_seed(0)
    right = torch.zeros(2, dtype=torch.float64)
    count = 0
    for batch in rows.spaced(pace.validate_images, pace.batch_size):
        batch = batch.to(device)
        for place, seen in enumerate((batch, corruption(batch, rng))):
            for part in by_count(seen):
                source = most_likely_source(recovery(codes_of(part.indices, corruption.bits), grid))
                right[place] += (source == part.source).float().mean(dim=1).sum().cpu()
        count += len(batch.labels)
    return dict(zip(("source_accuracy", "source_accuracy_corrupted"), (right / count).tolist(), strict=True))


def with_recovery(tokenizer: nn.Module, weights: dict[str, Any]) -> Tokenizer:
    """A copy of a tokenizer with other weights of source recovery."""
    assert isinstance(tokenizer, Tokenizer)
    whole = copy.deepcopy(tokenizer)
    whole.recovery.load_state_dict(weights)
    return whole
