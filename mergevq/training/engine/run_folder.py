"""The run folder: going on from what is in it, and the files by which it describes itself.

runs/NAME/
  run.yaml            the whole configuration
  environment.json    versions, device, command
  log.csv             losses and validation by step
  pictures/           what the model makes, by step
  checkpoints/        last.ckpt: everything that a resumed run needs
  config.json, model.safetensors, ...     the averaged model, for mergevq.load
"""

from __future__ import annotations

import json
import logging
import platform
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from mergevq.backends import Device
from mergevq.config import from_dict, to_dict
from mergevq.errors import CheckpointError, ConfigError, OutputError
from mergevq.models.store import read_checkpoint, write_atomically
from mergevq.storage.leftovers import clear
from mergevq.storage.locks import only_writer
from mergevq.training.engine.checkpoint import LAST, steps_done
from mergevq.training.engine.listings import check_same_data
from mergevq.training.engine.processes.cluster import is_first_process

logger = logging.getLogger(__name__)

PACE_MAY_CHANGE = {
    "data.workers",
    "train.log_every",
    "train.validate_every",
    "train.validate_images",
    "train.checkpoint_every",
    "train.tensorboard",
    "train.compile",
}
"""Settings of every stage that do not decide the weights, so that a resumed run may have others."""


@contextmanager
def only_run(out: Path) -> Iterator[None]:
    """Within this context no other run uses the folder; the processes of one run do not keep each other out.

    Raises:
        UsageError: another run is within; its process is named.
        OutputError: the folder cannot be written to.
    """
    if is_first_process():
        with only_writer(out, doing="trains there"):
            yield
    else:
        yield


def last_checkpoint(
    config: Any,
    out: Path,
    circumstances: dict[str, Any],
    may_change: Collection[str],
    listings: Mapping[str, Any],
    of: str,
) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one and its settings and its data are these.

    Args:
        config: the run's.
        out: the run folder; made where it is missing.
        circumstances: what decides the weights beside the configuration.
        may_change: dotted keys that a resumed run may have otherwise.
        listings: what it is trained and validated on, by name and label.
        of: what these are made of, "pictures" say.

    Raises:
        OutputError: the folder cannot be written to.
        ConfigError: it holds a run with other settings, or on other data.
        CheckpointError: its checkpoint cannot be read.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        for folder in (out, *(path for path in out.iterdir() if path.is_dir())):
            clear(folder)  # also where all steps are done, and nothing is written any more
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}") from error
    if not (out / LAST).exists():
        return None
    last = read_checkpoint(out / LAST)
    before = last.get("mergevq", {}).get("config")
    if not isinstance(before, dict):
        raise CheckpointError(f"{out / LAST} is not a checkpoint of a training run")
    changed = _differences(_completed(before, type(config)), to_dict(config)) - {*may_change}
    # Which data is asked for comes first, then what it holds: a model may follow from its classes.
    _check_unchanged({key for key in changed if key.startswith("data.")}, out)
    check_same_data(last["mergevq"].get("data"), listings, out, of)
    _check_unchanged(changed | _differences(last["mergevq"].get("circumstances"), circumstances), out)
    return last


def finish(
    out: Path, last: dict[str, Any], present: Callable[[], nn.Module], renew: Callable[[Any], None]
) -> None:
    """For a run whose steps are all done: makes sure that the model beside the checkpoint is the checkpoint's.

    A run that was killed between its last two files has an older model there.

    Args:
        out: the run folder.
        last: its checkpoint.
        present: loads the averaged network that is there.
        renew: writes the model with the averaged weights that it is given.
    """
    logger.info("%s: all %d steps are done already", out, steps_done(last))
    prefix = "ema."
    averaged = {
        name.removeprefix(prefix): value
        for name, value in last["state_dict"].items()
        if name.startswith(prefix)
    }
    try:
        there = present().state_dict()
    except CheckpointError:
        there = {}
    same = there.keys() == averaged.keys() and all(torch.equal(there[name], averaged[name]) for name in there)
    if not same:
        renew(averaged)


def describe(config: Any, out: Path, device: Device, circumstances: dict[str, Any]) -> None:
    """Writes run.yaml and environment.json."""
    names = ("mergevq", "torch", "lightning", "timm", "numpy", "pillow")
    environment = {
        "command": sys.argv,
        "device": device.name,
        **circumstances,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    write_atomically(out / "run.yaml", lambda path: path.write_text(text))
    write_atomically(
        out / "environment.json",
        lambda path: path.write_text(json.dumps(environment, indent=2) + "\n"),
    )


def _check_unchanged(changed: set[str], out: Path) -> None:
    if changed:
        raise ConfigError(
            f"{out} holds a run with other settings ({', '.join(sorted(changed))}); repeat its settings to go on, "
            "or choose another --out"
        )


def _completed(before: dict[str, Any], kind: type) -> dict[str, Any]:
    """The settings of a run, in which those that its version did not know yet are what they are by default."""
    try:
        return to_dict(from_dict(kind, before))
    except ConfigError:  # of a version that knew others: they are compared as they stand
        return before


def _differences(before: Any, now: Any, path: str = "") -> set[str]:
    """Dotted keys at which two configurations differ."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return set() if before == now else {path}
    names = {*before, *now}
    return set().union(
        *(_differences(before.get(name), now.get(name), f"{path}.{name}".lstrip(".")) for name in names)
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a distribution"
