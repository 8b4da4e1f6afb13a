"""Mixed precision as the device defines it, as Lightning's precision plug-in.

Lightning's own precision strings autocast on CUDA whatever the accelerator is: on a device that Lightning does
not know, "bf16-mixed" trains in float32 without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.plugins.precision import Precision

from mergevq.backends import Device


class DevicePrecision(Precision):
    """Runs every training step in `Device.autocast`; weights and optimisers stay float32.

    Args:
        device: what the run is on.
        precision: "32" or "bf16".
    """

    def __init__(self, device: Device, precision: str):
        self.device = device
        self.name = precision
        self.precision = "bf16-mixed" if precision == "bf16" else "32-true"

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """The context of a training step."""
        with self.device.autocast(self.name):
            yield
