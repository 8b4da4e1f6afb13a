"""Settings of a run from a recipe, a file and the command line, and the options that every run has."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common
from mergevq.cli.shared.parser import is_dotted
from mergevq.errors import ConfigError, UsageError, shown
from mergevq.storage.documents import DocumentError, parse_yaml, read_yaml

if TYPE_CHECKING:
    from mergevq.backends import Device


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """--out, --config, --devices, --device, --print-config and dotted options."""
    parser.add_argument("--out", type=common.path, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--config",
        type=common.path,
        metavar="FILE.yaml",
        help="settings in groups, as in the run.yaml of a run folder",
    )
    parser.add_argument(
        "--devices", type=common.some_processes, default=1, metavar="N", help="how many [%(default)s]"
    )
    common.add_device(parser)
    parser.add_argument("--print-config", action="store_true", help="print every setting as YAML and stop")
    parser.set_defaults(takes_overrides=True)


def read_file(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of --config with dotted keys; none without it."""
    return _read(options.config) if options.config else {}


def given(
    config: object, file: Mapping[str, Any], overrides: Sequence[str], named: Mapping[str, str | None]
) -> dict[str, Any]:
    """What the user wants otherwise than the recipe, by dotted key.

    Args:
        config: a run of the kind, which says what is text.
        file: of `read_file`.
        overrides: dotted options as written; they win over the file.
        named: keys that have an option of their own, and its value; these win over both.

    Raises:
        ConfigError: a value is not understood.
    """
    own = {key: value for key, value in named.items() if value}
    return _fitting(config, file) | _dotted(overrides, config) | own


def require(changes: Mapping[str, Any], **options: str) -> None:
    """Makes sure that keys were given.

    Args:
        changes: of `given`.
        options: a key of the group `data`, and its option.

    Raises:
        UsageError: one is missing.
    """
    for key, option in options.items():
        if not changes.get(f"data.{key}"):
            raise UsageError(f"{option} is missing; --help says what it takes")


def print_settings(config: object) -> int:
    """Prints every setting as YAML; returns the exit code."""
    import yaml

    from mergevq.config import to_dict

    print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
    return 0


def launch_options(options: argparse.Namespace) -> tuple[Path, Device, int]:
    """The run folder, the device and how many of it.

    Raises:
        UsageError: there is no --out, or there are fewer devices.
        DeviceUnavailableError: the device cannot be used.
    """
    if options.out is None:
        raise UsageError("--out is missing: the folder for the run")
    from mergevq.backends import select

    device = select(options.device)
    present = device.probe().count
    if device.name != "cpu" and options.devices > present:
        raise UsageError(f"--devices {options.devices}: there are {present} of {device.name}")
    return options.out, device, options.devices


def _read(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, with dotted keys."""
    try:
        values = read_yaml(path)
    except DocumentError as error:
        raise ConfigError(f"cannot read the settings in {path}: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must hold groups of keys, such as train: {{steps: 1000}}")
    flat: dict[str, Any] = {}
    for key, value in _flat(values):
        if key in flat:  # train: {steps: 3} beside train.steps: 4
            raise ConfigError(f"cannot read the settings in {path}: {shown(key)} is given twice")
        flat[key] = value
    return flat


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested groups as dotted keys: a group in a file changes the keys that it names and no others."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fitting(config: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """YAML reads `precision: 32` as a number; where the key holds text, text is meant."""
    return {
        key: str(value) if type(value) in (int, float) and isinstance(_current(config, key), str) else value
        for key, value in values.items()
    }


def _dotted(arguments: Sequence[str], config: object) -> dict[str, Any]:
    """Dotted keys and their values from `--key value` and `--key=value`."""
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
            values[key] = text if isinstance(_current(config, key), str) else parse_yaml(text)
        except DocumentError as error:
            raise ConfigError(f"the value {shown(text)} of {option} is not understood: {error}") from error
    return values


def _current(config: object, key: str) -> Any:
    """The value of a dotted key, None where there is no such key."""
    from mergevq.config import to_dict

    node: Any = to_dict(config)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
