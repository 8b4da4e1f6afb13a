"""What differs between device types apart from operators, behind one small class.

A device is a folder beside this file, or an installed distribution with an entry point in the group
`mergevq.devices`; either holds a `DEVICE`, an instance of a subclass of `Device`. Nothing else in the
package names a device.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import pkgutil
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mergevq.errors import DeviceUnavailableError, UsageError, shown, unknown_name

Module = TypeVar("Module", bound=nn.Module)

logger = logging.getLogger(__name__)

PREFERENCE = ("cuda", "npu", "cpu")
"""The order in which `auto` asks; devices from elsewhere come before the CPU."""


@dataclass(frozen=True)
class Probe:
    """Whether a device can be used, and why."""

    usable: bool
    reason: str
    """What was found, or what is missing and what to do about it."""
    count: int = 0
    """How many there are."""


class Device:
    """One device type. Subclasses fill in what differs; this class is what most devices share."""

    name: str
    """The torch device type."""
    distributed_backend: str
    """The torch.distributed backend between several of them."""
    also_called: tuple[str, ...] = ()
    """Names that people try for it."""
    visible: str | None = None
    """The environment variable that says which of several a process sees."""

    def probe(self) -> Probe:
        """Whether the device can be used here. Never raises."""
        raise NotImplementedError

    def capabilities(self) -> dict[str, str]:
        """What is worth knowing of a usable device: model, memory, fast dtypes."""
        return {}

    def autocast_dtype(self) -> torch.dtype:
        """The dtype of mixed precision on this device."""
        return torch.bfloat16

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """The context in which a forward pass runs at `precision` ("32" or "bf16")."""
        if precision == "32":
            return nullcontext()
        return torch.autocast(self.name, dtype=self.autocast_dtype())

    def fast_precision(self) -> str:
        """The precision that `auto` stands for: "bf16", or "32" where bf16 gains nothing."""
        return "bf16"

    def channels_last(self) -> bool:
        """Whether convolutions are faster with the channels innermost."""
        return True

    def for_few_rows(self, module: Module, rows: int) -> Module:
        """What computes as a module does in inference, faster where a pass has so many rows.

        Args:
            module: on this device; it is not changed, but must not change as long as the result is in use.
            rows: vectors that go through it at a time.

        Returns:
            The module itself, or something that shares its parameters and takes memory of its own.
        """
        return module

    def compilers(self) -> tuple[str, ...]:
        """Programs of which torch.compile needs one; none where it needs none."""
        return ()

    def synchronize(self) -> None:
        """Waits until everything queued on the device is done."""
        torch.accelerator.synchronize()

    def rng_state(self) -> torch.Tensor:
        """The state of the device's random generator, on the CPU."""
        raise NotImplementedError

    def set_rng_state(self, state: torch.Tensor) -> None:
        """Restores what `rng_state` returned."""
        raise NotImplementedError

    def trainer_arguments(self, devices: int, precision: str) -> dict[str, Any]:
        """The part of Lightning's Trainer arguments that depends on the device."""
        raise NotImplementedError


@functools.cache
def devices() -> dict[str, Device]:
    """Every device type that is known, by name: the folders beside this file, then entry points."""
    found: dict[str, Device] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg:
            device = importlib.import_module(f"{__package__}.{module.name}").DEVICE
            found[device.name] = device
    for entry in metadata.entry_points(group="mergevq.devices"):
        device = _plugged_in(entry)
        if device is None or found.setdefault(device.name, device) is device:
            continue
        logger.warning("device plug-in %s: %s is already there; ignored", entry.value, device.name)
    return found


def _plugged_in(entry: metadata.EntryPoint) -> Device | None:
    """The device behind an entry point; None for a broken one, which must not take the others down."""
    try:
        device = entry.load()
    except Exception as error:  # importing someone else's code can raise anything
        logger.warning("device plug-in %s (%s) cannot be loaded: %s", entry.name, entry.value, error)
        return None
    if not isinstance(device, Device):
        logger.warning("device plug-in %s (%s) is no Device: %r", entry.name, entry.value, device)
        return None
    return device


def for_few_rows(module: Module, rows: int) -> Module:
    """`Device.for_few_rows` of the device that a module is on; the module itself on one that nobody has described."""
    device = devices().get(next(module.parameters()).device.type)
    return module if device is None else device.for_few_rows(module, rows)


def select(name: str | None = None) -> Device:
    """The device to run on: `name`, else the environment variable MERGEVQ_DEVICE, else the best usable.

    Raises:
        UsageError: no device type has this name.
        DeviceUnavailableError: it was named and cannot be used, or none can.
    """
    name = name or os.environ.get("MERGEVQ_DEVICE") or "auto"
    known = devices()
    if name != "auto":
        if name not in known:
            raise UsageError(_unknown(name, known))
        probe = known[name].probe()
        if not probe.usable:
            raise DeviceUnavailableError(f"device {name} cannot be used: {probe.reason}")
        return known[name]
    for candidate in _by_preference(list(known)):
        if known[candidate].probe().usable:
            return known[candidate]
    raise DeviceUnavailableError("no device can be used; `mergevq doctor` says why")


def check_compiler(name: str) -> None:
    """Raises UsageError where torch.compile cannot work on a type of device, for want of a compiler."""
    device = devices().get(name)
    wanted = () if device is None else device.compilers()
    if wanted and not any(map(shutil.which, wanted)):
        raise UsageError(
            f"torch.compile needs a compiler, and {' or '.join(wanted)} is not on the PATH; install one, or do "
            "without compiling"
        )


def _unknown(name: str, known: dict[str, Device]) -> str:
    """One sentence for a name that no device has."""
    kind, colon, number = name.lower().partition(":")
    meant = next((each for each in known.values() if kind in (each.name, *each.also_called)), None)
    if meant is None:
        return unknown_name("device", name, ["auto", *known])
    which = (
        f" (a device is named by its type; {meant.visible}={number} chooses one)"
        if colon and meant.visible
        else ""
    )
    return f"unknown device {shown(name)}; did you mean {meant.name!r}?{which} known: {', '.join(['auto', *known])}"


def _by_preference(names: Sequence[str]) -> list[str]:
    others = [name for name in names if name not in PREFERENCE]
    ordered = [*PREFERENCE[:-1], *others, PREFERENCE[-1]]
    return [name for name in ordered if name in names]
