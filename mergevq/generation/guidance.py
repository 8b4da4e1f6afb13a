"""How strongly the class is insisted on, over the course of an image."""

from __future__ import annotations

from typing import Literal

from mergevq.errors import UsageError, unknown_name
from mergevq.inputs import checked_number

GuidanceSchedule = Literal["constant", "linear"]
_SCHEDULES = ("constant", "linear")


def check_guidance(scale: float, schedule: str) -> None:
    """Raises UsageError for a scale or a schedule that means nothing."""
    if schedule not in _SCHEDULES:
        raise UsageError(unknown_name("guidance schedule", schedule, _SCHEDULES))
    if checked_number("guidance", scale) < 0:
        raise UsageError(f"guidance is {scale}; it must be a number from 0 upwards, and 1 is none")


def guidance_at(scale: float, schedule: GuidanceSchedule, done: float) -> float | None:
    """The scale when a share `done` in [0, 1) of the tokens is there; None if the scale 1 asks for none at all.

    "linear" rises from 1 to `scale`, as RandAR has it (arXiv:2412.01827, Section 4.1).
    """
    if scale == 1:
        return None
    return scale if schedule == "constant" else 1 + (scale - 1) * done
