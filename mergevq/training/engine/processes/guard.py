"""Stops a run that is not on the device, or not in the precision, that was asked for.

Either can happen without a word: Lightning puts an accelerator that it does not know on the CPU, and autocasts
for CUDA. What is looked at is therefore what really is the case in a training step.
"""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mergevq.backends import Device
from mergevq.errors import DeviceUnavailableError


class DeviceGuard(Callback):
    """Compares device and autocast with what was asked for, at the start and in every pass; costs no wait.

    Args:
        device: that was asked for.
        precision: "32" or "bf16".
    """

    def __init__(self, device: Device, precision: str):
        self.device = device
        self.precision = precision

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the device that Lightning chose.

        Raises:
            DeviceUnavailableError: it is of another type.
        """
        self._check_device(trainer.strategy.root_device)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Looks at a loss, within the context that it was computed in.

        Raises:
            DeviceUnavailableError: it is on another device, or was computed in another precision.
        """
        self._check_device(loss.device)
        name = self.device.name
        wanted = self.device.autocast_dtype() if self.precision == "bf16" else None
        found = torch.get_autocast_dtype(name) if torch.is_autocast_enabled(name) else None
        if found != wanted:
            raise DeviceUnavailableError(
                f"the run was to be in {_shown(wanted)} on {name} and is in {_shown(found)}; "
                "--train.precision 32 trains without autocast"
            )

    def _check_device(self, found: torch.device) -> None:
        if found.type != self.device.name:
            raise DeviceUnavailableError(
                f"the run was to be on {self.device.name} and is on {found}; `mergevq doctor` says what works"
            )


def _shown(dtype: torch.dtype | None) -> str:
    return "float32" if dtype is None else f"float32 and {str(dtype).removeprefix('torch.')}"
