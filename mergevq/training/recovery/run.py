"""A fine-tuning run of source recovery: a tokenizer and its tokens in, a tokenizer in the run folder out."""

from __future__ import annotations

import os
from pathlib import Path

from mergevq.backends import Device
from mergevq.data.images.sources import open_source
from mergevq.data.tokens.extraction import describe, extract
from mergevq.data.tokens.meta import META
from mergevq.data.tokens.splits import TokenRows
from mergevq.errors import DataError, UsageError
from mergevq.generation.store import load_generator
from mergevq.models.checkpoint_path import checkpoint_path
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.store import WEIGHTS, load, save
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.files import expanded, sha256
from mergevq.training.engine.config import PaceConfig
from mergevq.training.engine.launch import prepare
from mergevq.training.engine.monitor import CsvLog, Validation
from mergevq.training.engine.token_run import TOKENS_MAY_CHANGE, OpenTokens, open_tokens, train_on_tokens
from mergevq.training.recovery.config import RecoveryRun
from mergevq.training.recovery.corruption import Corruption
from mergevq.training.recovery.module import RecoveryTraining, recovery_accuracy, with_recovery

_MAY_CHANGE = TOKENS_MAY_CHANGE | {"corruption.generator"}


class RecoveryValidation(Validation):
    """Measures the averaged source recovery on held-out tokens."""

    def __init__(self, folder: Path, log: CsvLog, rows: TokenRows, pace: PaceConfig):
        super().__init__(folder, log, pace.validate_every)
        self.rows = rows
        self.pace = pace

    def measure(self, module: RecoveryTraining) -> dict[str, float]:
        """Accuracy from true and from corrupted codes."""
        return recovery_accuracy(module.ema, self.rows, module.corruption, module.grid, self.pace)


def train_recovery(config: RecoveryRun, out: Path, device: Device, devices: int = 1) -> Path:
    """Fine-tunes the source recovery of a tokenizer, or goes on where the run in `out` stopped.

    Args:
        config: the run; `data.tokenizer` and `data.path` must be given.
        out: the run folder.
        device: what it runs on.
        devices: how many of them.

    Returns:
        The run folder, which `mergevq.load` takes: a tokenizer with the same encoder, quantiser and decoder.

    Raises:
        UsageError: the generator is of another kind, or `out` holds a run with other settings
            or on other tokens, or another run is writing to it.
        CheckpointError: tokens or generator belong to another tokenizer.
        MergeVQError: whatever else a user can cause.
    """
    tokens = open_tokens(config.data)
    generator, content = _generator(config, tokens)
    return train_on_tokens(
        config,
        tokens,
        prepare(config.train, out, device, devices, content | {"tokens": tokens.digest}, tokens.listings),
        may_change=_MAY_CHANGE,
        module=lambda steps, batch: RecoveryTraining(config, tokens.tokenizer, generator, steps, batch),
        validation=lambda log: RecoveryValidation(out, log, tokens.held_out, config.train),
        present=lambda: load(out).recovery,
        renew=lambda averaged: save(with_recovery(tokens.tokenizer, averaged), out),
    )


def compare(config: RecoveryRun, out: Path, device: Device) -> dict[str, tuple[float, float]]:
    """Accuracies on held-out tokens of the tokenizer that a run began with, and of the one in its folder."""
    tokens = open_tokens(config.data)
    model = tokens.tokenizer.config
    corruption = Corruption(config.corruption, model.quantizer.bits, _generator(config, tokens)[0])
    before, after = (
        recovery_accuracy(
            one.recovery.to(device.name), tokens.held_out, corruption, (model.grid, model.grid), config.train
        )
        for one in (tokens.tokenizer, load(out))
    )
    return {name: (before[name], after[name]) for name in before}


def tokens_of(data: str, tokenizer: Tokenizer, out: Path) -> Path:
    """A folder of tokens: the one that `data` is, or that of the pictures at `data`, made below `out`.

    Raises:
        UsageError: nothing is at `data`, or there are several processes, which would all make tokens.
        DataError: too many pictures cannot be read.
    """
    if (expanded(data) / META).is_file():
        return expanded(data)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UsageError(f"{data} holds no tokens; with several processes make them first: mergevq tokens")
    source = open_source(data, "train")
    folder = out / "tokens"
    missing = extract(tokenizer, source, folder, describe(tokenizer, source, "train"))
    if missing:
        raise DataError(f"{folder} is incomplete: {len(missing)} shards are missing")
    return folder


def _generator(config: RecoveryRun, tokens: OpenTokens) -> tuple[Generator | None, dict[str, str]]:
    """The generator whose samples replace codes, and the hash of its weights."""
    if config.corruption.generator is None:
        return None, {}
    where = checkpoint_path(config.corruption.generator)
    loaded = load_generator(where)
    if loaded.kind != "rand_ar":
        raise UsageError(f"{where} is a {loaded.kind} generator; source recovery serves rand_ar only")
    tokens.training.shards.check_tokenizer(loaded.tokenizer)
    return loaded.model, {"generator": sha256(where / WEIGHTS)}
