"""Ascend NPUs, through torch_npu.

Nothing of torch_npu is imported before a probe has found that it can work: without CANN, the vendor's
libraries below it, its import fails in ways that nothing can be done about afterwards.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from importlib import metadata
from typing import Any

import torch

import mergevq.backends.npu.attention
import mergevq.backends.npu.merging
import mergevq.backends.npu.quantization
import mergevq.backends.npu.transformer  # noqa: F401  (registers the operators)
from mergevq.backends.device import Device, Probe

_LIBRARIES = ("libascendcl.so", "libhccl.so")
"""Of CANN; whichever is missing, the rest is too, or its environment is not set."""


class NpuDevice(Device):
    """Ascend NPUs; several of them talk through HCCL."""

    name = "npu"
    distributed_backend = "hccl"
    also_called = ("ascend", "huawei")
    visible = "ASCEND_RT_VISIBLE_DEVICES"

    def probe(self) -> Probe:
        try:
            problem = _installation() or _libraries()
            if problem is not None:
                return Probe(False, problem)
            return _found(importlib.import_module("torch_npu").npu)
        except Exception as error:  # a probe never raises: whatever went wrong is the reason
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Probe(False, f"torch_npu is there and cannot be used: {reason}")

    def capabilities(self) -> dict[str, str]:
        import torch_npu

        memory = torch_npu.npu.get_device_properties(_local_rank()).total_memory
        return {
            "processor": torch_npu.npu.get_device_name(_local_rank()),
            "memory": f"{memory / 2**30:.0f} GiB",
            "bf16": str(torch_npu.npu.is_bf16_supported()),
        }

    def fast_precision(self) -> str:
        import torch_npu

        return "bf16" if torch_npu.npu.is_bf16_supported() else "32"

    def channels_last(self) -> bool:
        # torch_npu has no kernels for this layout, and would copy every picture into its own.
        return False

    def synchronize(self) -> None:
        import torch_npu

        torch_npu.npu.synchronize()

    def rng_state(self) -> torch.Tensor:
        import torch_npu

        return torch_npu.npu.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        import torch_npu

        torch_npu.npu.set_rng_state(state)

    def trainer_arguments(self, devices: int, precision: str) -> dict[str, Any]:
        # Importing it tells Lightning of the names below.
        from mergevq.backends.npu import lightning

        strategy = lightning.SINGLE if devices == 1 else lightning.DDP
        return {"accelerator": self.name, "devices": devices, "strategy": strategy}


def _installation() -> str | None:
    """What is wrong with the installed torch_npu, without importing it."""
    if importlib.util.find_spec("torch_npu") is None:
        return "torch_npu is not installed; pip install mergevq[npu], in the minor version of torch"
    found = metadata.version("torch_npu")
    if found.split(".")[:2] != torch.__version__.split(".")[:2]:
        minor = ".".join(torch.__version__.split(".")[:2])
        return f"torch_npu {found} does not belong to torch {torch.__version__}; pip install torch_npu=={minor}.*"
    return None


def _libraries() -> str | None:
    """Which library of CANN the loader does not find."""
    if "torch_npu" in sys.modules:  # its import has found them
        return None
    for library in _LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            return (
                f"CANN cannot be loaded ({error}); install it if it is missing, then: "
                "source /usr/local/Ascend/ascend-toolkit/set_env.sh"
            )
    return None


def _found(npu: Any) -> Probe:
    """What torch_npu's runtime sees."""
    count = npu.device_count()
    if count == 0 or not npu.is_available():
        return Probe(False, "no Ascend NPU or driver was found; `npu-smi info` should list one")
    torch.zeros(1, device=f"npu:{_local_rank()}")
    name = npu.get_device_name(_local_rank())
    return Probe(True, f"{name}, torch_npu {metadata.version('torch_npu')}", count)


def _local_rank() -> int:
    """The card of this process: every process that asks card 0 would take memory there."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


DEVICE = NpuDevice()
