"""`mergevq train tokenizer`: stage 1, from a preset, a file and the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.cli import common
from mergevq.cli.parser import is_dotted
from mergevq.errors import CheckpointError, ConfigError, UsageError

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.models.tokenizer import Tokenizer
    from mergevq.training.config import TokenizerRun


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on your own pictures",
        description="Trains a model, or goes on where the run in --out stopped.",
        epilog="examples:\n"
        "  mergevq train tokenizer --preset tiny-32 --data builtin:digits --out runs/digits\n",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True, title="kinds")
    _register_tokenizer(kinds)


def _register_tokenizer(kinds: Any) -> None:
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
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--recipe",
        default="default",
        metavar="NAME",
        help="default: the paper's settings; released: those of the authors' code [%(default)s]",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="settings in groups, as in the run.yaml of a run folder",
    )
    parser.add_argument(
        "--init", metavar="CHECKPOINT", help="begin with its weights; the model must be the same"
    )
    parser.add_argument(
        "--devices", type=common.positive, default=1, metavar="N", help="how many [%(default)s]"
    )
    common.add_device(parser)
    parser.add_argument("--print-config", action="store_true", help="print every setting as YAML and stop")
    parser.set_defaults(run=run, takes_overrides=True)


def run(options: argparse.Namespace) -> int:
    """Trains."""
    config = configuration(options)
    if options.print_config:
        import yaml

        from mergevq.config import to_dict

        print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
        return 0
    if options.out is None:
        raise UsageError("--out is missing: the folder for the run")
    from mergevq.backends import select
    from mergevq.data.sources import open_source
    from mergevq.training.run import train_tokenizer

    device = select(options.device)
    _check_count(device, options.devices)
    open_source(config.data.path, "train", config.data.holdout)  # before a run folder is made
    initial = _initial(options.init, config) if options.init else None
    folder = train_tokenizer(config, options.out, device, options.devices, initial)
    print(folder)
    return 0


def configuration(options: argparse.Namespace) -> TokenizerRun:
    """The run that a command line describes: recipe, then file, then dotted options, then --data.

    Raises:
        UsageError: something is missing, or a key or a value is wrong.
    """
    from mergevq.config import override
    from mergevq.training.recipes import recipe

    file = _read(options.config) if options.config else {}
    name = options.preset or file.get("model.name")
    if name is None:
        raise UsageError("--preset is missing; mergevq.presets() lists them, tiny-32 is the smallest")
    config = recipe(str(name), options.recipe)
    config = override(config, _fitting(config, file))
    changes = _dotted(options.overrides, config)
    if options.data:
        changes["data.path"] = options.data
    elif not (options.print_config or "data.path" in changes or "data.path" in file):
        raise UsageError("--data is missing: a folder of pictures, tar shards or builtin:photos")
    return override(config, changes)


def _read(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, with dotted keys."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings in {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must hold groups of keys, such as train: {{steps: 1000}}")
    return _flat(values)


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys: a group in a file changes the keys that it names and no others."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _fitting(config: TokenizerRun, values: Mapping[str, Any]) -> dict[str, Any]:
    """YAML reads `precision: 32` as a number; where the key holds text, text is meant."""
    return {
        key: str(value) if type(value) in (int, float) and isinstance(_current(config, key), str) else value
        for key, value in values.items()
    }


def _dotted(arguments: Sequence[str], config: TokenizerRun) -> dict[str, Any]:
    """Dotted keys and their values from `--key value` and `--key=value`."""
    import yaml

    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option, equals, text = rest.pop(0).partition("=")
        if not is_dotted(option):
            raise UsageError(f"unexpected argument {option!r}; settings are written --group.key value")
        if not equals:
            if not rest or is_dotted(rest[0]):
                raise UsageError(f"{option} has no value")
            text = rest.pop(0)
        key = option.removeprefix("--")
        try:
            values[key] = text if isinstance(_current(config, key), str) else yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value {text!r} of {option} is not understood") from error
    return values


def _current(config: TokenizerRun, key: str) -> Any:
    """The value of a dotted key, None where there is no such key."""
    from mergevq.config import to_dict

    node: Any = to_dict(config)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _check_count(device: Device, wanted: int) -> None:
    present = device.probe().count
    if device.name != "cpu" and wanted > present:
        raise UsageError(f"--devices {wanted}: there are {present} of {device.name}")


def _initial(checkpoint: str, config: TokenizerRun) -> Tokenizer:
    """The run's model with the weights of a checkpoint."""
    from mergevq.models.store import load
    from mergevq.models.tokenizer import Tokenizer

    tokenizer = Tokenizer(config.model)
    try:
        tokenizer.load_state_dict(load(checkpoint).state_dict())
    except RuntimeError as error:
        raise CheckpointError(
            f"{checkpoint} holds another model than the run's {config.model.name}: "
            f"{str(error).splitlines()[1].strip()}"
        ) from error
    return tokenizer
