"""NVIDIA GPUs."""

from __future__ import annotations

import os
from typing import Any

import torch

import mergevq.backends.cuda.attention
import mergevq.backends.cuda.merging
import mergevq.backends.cuda.quantization  # noqa: F401  (registers the operators)
from mergevq.backends.device import Device, Probe


class CudaDevice(Device):
    """NVIDIA GPUs through torch.cuda; several of them talk through NCCL."""

    name = "cuda"
    distributed_backend = "nccl"
    also_called = ("gpu", "nvidia")
    visible = "CUDA_VISIBLE_DEVICES"

    def probe(self) -> Probe:
        if torch.version.cuda is None:
            return Probe(False, "this build of PyTorch has no CUDA; install one from pytorch.org")
        try:
            count = torch.cuda.device_count()
            if count == 0 or not torch.cuda.is_available():
                return Probe(False, "no NVIDIA GPU or driver was found; `nvidia-smi` should list one")
            torch.zeros(1, device="cuda")
            return Probe(True, f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}", count)
        except Exception as error:  # a probe never raises: whatever went wrong is the reason
            return Probe(False, f"a GPU was found and cannot be used: {error}")

    def capabilities(self) -> dict[str, str]:
        properties = torch.cuda.get_device_properties(0)
        return {
            "compute capability": f"{properties.major}.{properties.minor}",
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "bf16": str(torch.cuda.is_bf16_supported()),
        }

    def compilers(self) -> tuple[str, ...]:
        own = os.environ.get("CC")  # of Triton, for what launches its kernels
        return (own,) if own else ("gcc", "clang", "cc")

    def rng_state(self) -> torch.Tensor:
        return torch.cuda.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.cuda.set_rng_state(state)

    def trainer_arguments(self, devices: int, precision: str) -> dict[str, Any]:
        strategy = "auto" if devices == 1 else "ddp_find_unused_parameters_true"
        return {"accelerator": "cuda", "devices": devices, "strategy": strategy}


DEVICE = CudaDevice()
