"""A device's random state, as a checkpoint holds it.

The CPU's is not among them: the stages that draw from it save it themselves. A state means nothing to another
type of device: a run that moves to one goes on with that device's own.
"""

from __future__ import annotations

import logging
from typing import Any

from mergevq.backends import Device

logger = logging.getLogger(__name__)


def random_state(device: Device | None) -> dict[str, Any] | None:
    """The state of an accelerator and its name; None for the CPU, or where nothing runs."""
    if device is None or device.name == "cpu":
        return None
    return {"device": device.name, "state": device.rng_state()}


def restore_random_state(device: Device | None, saved: dict[str, Any] | None) -> None:
    """Takes back what `random_state` returned, on a device of the same type."""
    if device is None or saved is None:
        return
    if saved["device"] == device.name:
        device.set_rng_state(saved["state"])
    else:
        logger.info(
            "the run was on %s and goes on on %s, with that device's own random state",
            saved["device"],
            device.name,
        )
