"""`mergevq train recovery`: source recovery, made robust against the codes of a generator."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import settings

if TYPE_CHECKING:
    from mergevq.training.recovery.config import RecoveryRun


def register(kinds: Any) -> None:
    """Adds the kind."""
    parser = kinds.add_parser(
        "recovery",
        help="after stage 2: source recovery on codes such as a generator makes",
        description="Fine-tunes the source recovery of a tokenizer on its tokens, of which a random share is "
        "replaced: by samples of --generator, or by codes with flipped bits. Encoder, quantiser and decoder stay "
        "as they are to the bit, so that tokens and generators go on to fit. The same command again goes on "
        "where a run stopped.",
        epilog="examples:\n"
        "  mergevq train recovery --checkpoint runs/tok --data runs/tokens --generator runs/gen --out runs/tok-2\n"
        "  mergevq train recovery --checkpoint runs/tok --data photos/ --out runs/tok-2 --train.steps 1000\n",
    )
    parser.add_argument("--checkpoint", metavar="TOK", help="the tokenizer to fine-tune")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a folder of `mergevq tokens`, or pictures, of which tokens are made in the run folder",
    )
    parser.add_argument("--generator", metavar="G", help="a rand_ar generator of these tokens")
    settings.add_run_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fine-tunes; prints the accuracies before and after, then the run folder."""
    config = configuration(options)
    if options.print_config:
        return settings.print_settings(config)
    out, device, devices = settings.launch_options(options)
    from mergevq.config import override
    from mergevq.models.store import load
    from mergevq.training.recovery.run import compare, tokens_of, train_recovery

    tokens = tokens_of(config.data.path, load(config.data.tokenizer), out)
    config = override(config, {"data.path": str(tokens)})
    train_recovery(config, out, device, devices)
    names = {"source_accuracy": "true codes", "source_accuracy_corrupted": "corrupted codes"}
    for name, (before, after) in compare(config, out, device).items():
        print(f"source recovery from {names[name]}: {before:.2%} of the positions before, {after:.2%} after")
    print(out)
    return 0


def configuration(options: argparse.Namespace) -> RecoveryRun:
    """The run that a command line describes: defaults, file, dotted options, options of their own.

    Raises:
        UsageError: something is missing, or a key or a value is wrong.
    """
    from mergevq.config import override
    from mergevq.training.recovery.config import RecoveryRun

    named = {
        "data.tokenizer": options.checkpoint,
        "data.path": options.data,
        "corruption.generator": options.generator,
    }
    config = RecoveryRun()
    changes = settings.given(config, settings.read_file(options), options.overrides, named)
    if not options.print_config:
        settings.require(changes, tokenizer="--checkpoint", path="--data")
    return override(config, changes)
