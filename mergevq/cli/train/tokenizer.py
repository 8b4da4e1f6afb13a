"""`mergevq train tokenizer`: stage 1, from a preset, a file and the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import settings
from mergevq.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from mergevq.models.tokenizer.tokenizer import Tokenizer
    from mergevq.training.tokenizer.config import TokenizerRun


def register(kinds: Any) -> None:
    """Adds the kind."""
    parser = kinds.add_parser(
        "tokenizer",
        help="stage 1: pictures to tokens and back",
        description="Trains a tokenizer. The settings are those of the preset's recipe, then those of "
        "--config, then dotted options: --train.steps 1000, --loss.perceptual 0, --model.encoder.depth 4. "
        "--print-config shows every key with its value and trains nothing. The same command again goes on "
        "where a run stopped.",
        epilog="examples:\n"
        "  mergevq train tokenizer --preset tiny-32 --data photos/ --out runs/tok\n"
        "  mergevq train tokenizer --preset G+R --data imagenet/ --out runs/gr --devices 8\n"
        "  mergevq train tokenizer --preset small-64 --print-config\n"
        "  mergevq train tokenizer --config runs/tok/run.yaml --out runs/tok-2 --train.seed 1\n",
    )
    parser.add_argument("--preset", metavar="NAME", help="G+R, tiny-32, ... [the model.name of --config]")
    parser.add_argument("--data", metavar="PATH", help="image folder, tar shards or builtin:NAME")
    parser.add_argument(
        "--recipe",
        default="default",
        metavar="NAME",
        help="default: the paper's settings; released: those of the authors' code [%(default)s]",
    )
    parser.add_argument(
        "--init", metavar="CHECKPOINT", help="begin with its weights; the model must be the same"
    )
    settings.add_run_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Trains."""
    config = configuration(options)
    if options.print_config:
        return settings.print_settings(config)
    out, device, devices = settings.launch_options(options)
    from mergevq.data.images.sources import open_source
    from mergevq.training.tokenizer.run import train_tokenizer

    open_source(config.data.path, "train", config.data.holdout)  # before a run folder is made
    initial = _initial(options.init, config) if options.init else None
    print(train_tokenizer(config, out, device, devices, initial))
    return 0


def configuration(options: argparse.Namespace) -> TokenizerRun:
    """The run that a command line describes: recipe, then file, then dotted options, then --data.

    Raises:
        UsageError: something is missing, or a key or a value is wrong.
    """
    from mergevq.config import override
    from mergevq.training.tokenizer.recipes import recipe

    file = settings.read_file(options)
    name = options.preset or file.get("model.name")
    if name is None:
        raise UsageError("--preset is missing; mergevq.presets() lists them, tiny-32 is the smallest")
    config = recipe(str(name), options.recipe)
    changes = settings.given(config, file, options.overrides, {"data.path": options.data})
    config = override(config, changes)
    if not (options.print_config or "data.path" in changes):
        raise UsageError("--data is missing: a folder of pictures, tar shards or builtin:photos")
    return config


def _initial(checkpoint: str, config: TokenizerRun) -> Tokenizer:
    """The run's model with the weights of a checkpoint."""
    from mergevq.models.store import load, misfit
    from mergevq.models.tokenizer.tokenizer import Tokenizer

    weights = load(checkpoint).state_dict()
    tokenizer = Tokenizer(config.model)
    try:
        tokenizer.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint} holds another model than the run's {config.model.name}: {misfit(error)}"
        ) from error
    return tokenizer
