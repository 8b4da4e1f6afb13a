"""`mergevq train generator`: stage 2, on the tokens that a tokenizer made."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import settings
from mergevq.errors import UsageError

if TYPE_CHECKING:
    from mergevq.generator_config import GeneratorConfig
    from mergevq.training.generator.config import GeneratorRun


def register(kinds: Any) -> None:
    """Adds the kind."""
    from mergevq.generator_config import GeneratorKind

    parser = kinds.add_parser(
        "generator",
        help="stage 2: classes to tokens",
        description="Trains a class-conditional generator on the tokens of `mergevq tokens`. The grid, the split "
        "of the codes, the kept counts and the classes are those of the tokens; the settings are those of the "
        "size's recipe, then those of --config, then dotted options: --train.steps 1000, --model.dropout 0. "
        "--print-config shows every key with its value and trains nothing. The same command again goes on "
        "where a run stopped.",
        epilog="examples:\n"
        "  mergevq train generator --preset nano --tokenizer runs/tok --data runs/tokens --out runs/gen\n"
        "  mergevq train generator --preset L --kind rand_ar --tokenizer runs/gr --data runs/gr-tokens "
        "--out runs/l --devices 8\n"
        "  mergevq train generator --preset B --kind raster --print-config\n"
        "  mergevq train generator --config runs/gen/run.yaml --out runs/gen-2 --train.seed 1\n",
    )
    parser.add_argument(
        "--preset", metavar="SIZE", help="nano, tiny, small, B, L, XL, XXL [that of --config]"
    )
    parser.add_argument(
        "--kind",
        choices=typing.get_args(GeneratorKind),
        help="the order of the tokens and what stays in the context [that of --config, else merge_ar]",
    )
    parser.add_argument("--tokenizer", metavar="C", help="the checkpoint that made the tokens")
    parser.add_argument("--data", metavar="TOKENS", help="a folder of `mergevq tokens`")
    parser.add_argument(
        "--validation", metavar="TOKENS", help="another such folder to validate on [a share of --data]"
    )
    settings.add_run_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Trains."""
    config = configuration(options)
    if options.print_config:
        return settings.print_settings(config)
    out, device, devices = settings.launch_options(options)
    from mergevq.training.generator.run import train_generator

    print(train_generator(config, out, device, devices))
    return 0


def configuration(options: argparse.Namespace) -> GeneratorRun:
    """The run that a command line describes: recipe, tokens, file, dotted options, options of their own.

    Raises:
        UsageError: something is missing, or a key or a value is wrong.
    """
    from mergevq.config import override
    from mergevq.training.generator.config import GeneratorRun
    from mergevq.training.generator.recipes import generator_recipe

    named = {
        "model.name": options.preset,
        "model.kind": options.kind,
        "data.tokenizer": options.tokenizer,
        "data.path": options.data,
        "data.validation": options.validation,
    }
    changes = settings.given(GeneratorRun(), settings.read_file(options), options.overrides, named)
    if not changes.get("model.name"):
        raise UsageError("--preset is missing: nano, tiny, small, B, L, XL or XXL")
    if not options.print_config:
        settings.require(changes, tokenizer="--tokenizer", path="--data")
    return override(generator_recipe(_model(changes)), changes)


def _model(changes: Mapping[str, Any]) -> GeneratorConfig:
    """The generator for these tokens; the paper's G+R and ImageNet stand in for what --print-config is not told."""
    from mergevq.data.tokens.meta import read_meta
    from mergevq.generator_config import generator_config
    from mergevq.models.store import load
    from mergevq.presets import preset
    from mergevq.storage.files import expanded

    fitting: dict[str, Any] = {}
    if changes.get("data.path"):
        meta = read_meta(expanded(changes["data.path"]))
        fitting = {"counts": meta.counts, "classes": meta.classes}
    where = changes.get("data.tokenizer")
    tokenizer = load(where).config if where else preset("G+R")
    return generator_config(
        changes["model.name"], changes.get("model.kind", "merge_ar"), tokenizer, **fitting
    )
