"""A run on token shards, whatever is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Trainer, seed_everything
from torch import nn

from mergevq.data.listing.overview import say_overview
from mergevq.data.listing.passed_over import UNREADABLE, PassedOver
from mergevq.data.listing.splits import Census
from mergevq.data.tokens.shards import TokenShards, token_loader
from mergevq.data.tokens.splits import TokenRows, all_rows, hold_out
from mergevq.errors import UsageError
from mergevq.models.store import load
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.training.engine.checkpoint import steps_done
from mergevq.training.engine.config import TokenConfig
from mergevq.training.engine.launch import Launch, planned_steps, train
from mergevq.training.engine.listings import list_tokens
from mergevq.training.engine.monitor import CsvLog, Validation
from mergevq.training.engine.run_folder import PACE_MAY_CHANGE, finish, last_checkpoint, only_run
from mergevq.training.engine.stepping import Run, SteppedTraining

TOKENS_MAY_CHANGE = PACE_MAY_CHANGE | {"data.tokenizer", "data.path"}
"""What may change in a resumed run: its circumstances name the tokens by their content."""


class TokenRun(Run, Protocol):
    """A run that has tokens too."""

    @property
    def data(self) -> TokenConfig: ...


@dataclass(frozen=True)
class OpenTokens:
    """Tokens, and the tokenizer that made them."""

    tokenizer: Tokenizer
    training: TokenRows
    held_out: TokenRows

    @property
    def digest(self) -> str:
        """What names the tokens by their content."""
        return self.training.meta.digest

    @property
    def listings(self) -> dict[str, Any]:
        """The records of both parts, by class."""
        return {"training": list_tokens(self.training), "validation": list_tokens(self.held_out)}


def open_tokens(config: TokenConfig) -> OpenTokens:
    """The tokens of a run.

    Raises:
        CheckpointError: they were made by another tokenizer.
        UsageError, DataError: there are none, or they are damaged.
    """
    tokenizer = load(config.tokenizer)
    shards = TokenShards(config.path)
    shards.check_tokenizer(tokenizer)
    if config.validation is None:
        training, held_out = hold_out(shards, config.holdout)
        _say(config.path, training, held_out, f"{100 * config.holdout:.3g}% held out")
        return OpenTokens(tokenizer, training, held_out)
    others = TokenShards(config.validation)
    others.check_tokenizer(tokenizer)
    if others.meta.class_names != shards.meta.class_names:
        raise UsageError(f"the classes of {config.validation} are not those of {config.path}")
    training, held_out = all_rows(shards), all_rows(others)
    _say(config.path, training, held_out, f"those of {config.validation}")
    return OpenTokens(tokenizer, training, held_out)


def _say(path: str, training: TokenRows, held_out: TokenRows, how: str) -> None:
    """The line with which every command that reads data begins."""
    views = (training.meta.views, held_out.meta.views)
    passed = PassedOver()
    for missing in {id(part.shards): part.shards.unreadable for part in (training, held_out)}.values():
        for one in missing:
            passed.add(UNREADABLE, one.name)
    census = Census(
        training=len(training) // views[0],
        validation=len(held_out) // views[1],
        how=how,
        named=False,
        remarks=[f"{' and '.join(map(str, dict.fromkeys(views)))} views of each, as tokens"],
    )
    say_overview(path, census, training.meta.class_names, passed)


def train_on_tokens(
    config: TokenRun,
    tokens: OpenTokens,
    launch: Launch,
    *,
    may_change: Collection[str],
    module: Callable[[int, int], SteppedTraining],
    validation: Callable[[CsvLog], Validation],
    present: Callable[[], nn.Module],
    renew: Callable[[dict[str, Any]], None],
) -> Path:
    """Trains, or goes on where the run in the folder stopped.

    Args:
        config: the run.
        tokens: of `open_tokens`.
        launch: where it runs; its circumstances name the tokens.
        may_change: dotted keys that a resumed run may have otherwise.
        module: makes what is trained, from the number of steps and the global batch.
        validation: makes its validation, given the log.
        present: loads the averaged network in the run folder.
        renew: writes the model with the averaged weights that it is given.

    Returns:
        The run folder.

    Raises:
        ConfigError: the folder holds a run with other settings, or on other tokens.
        UsageError: another run is writing to the folder.
    """
    with only_run(launch.out):
        last = last_checkpoint(
            config, launch.out, launch.circumstances, may_change, launch.listings, "records"
        )
        done = steps_done(last)
        steps = planned_steps(config.train, launch.images_per_step, lambda: len(tokens.training))
        if last and done >= steps:
            finish(launch.out, last, present, renew)
            return launch.out
        seed_everything(config.train.seed, verbose=False)
        train(
            config,
            module(steps, launch.images_per_step),
            launch,
            last,
            validation=validation,
            loader=lambda trainer: _loader(config, tokens.training, steps, done, trainer),
        )
    return launch.out


def _loader(config: TokenRun, rows: TokenRows, steps: int, done: int, trainer: Trainer) -> Any:
    """The batches of this rank from the first step that is left."""
    pace = config.train
    return token_loader(
        rows,
        pace.batch_size,
        seed=pace.seed,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        start_step=done * pace.accumulate,
        steps=steps * pace.accumulate,
        workers=config.data.workers,
        pin_memory=trainer.strategy.root_device.type == "cuda",
    )
