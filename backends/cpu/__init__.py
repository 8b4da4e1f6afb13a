"""The CPU."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import torch

import mergevq.backends.cpu.convolution
import mergevq.backends.cpu.merging
import mergevq.backends.cpu.preactivation
import mergevq.backends.cpu.transformer  # noqa: F401  (registers the operators)
from mergevq.backends.cpu import few_rows
from mergevq.backends.device import Device, Module, Probe


class CpuDevice(Device):
    """The CPU: always usable; bf16 is fast where the processor has AMX or AVX-512 BF16."""

    name = "cpu"
    distributed_backend = "gloo"

    def probe(self) -> Probe:
        return Probe(True, f"{platform.machine()}, {torch.get_num_threads()} threads", 1)

    def capabilities(self) -> dict[str, str]:
        return {
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "bf16": "AMX" if torch.cpu._is_amx_tile_supported() else "without AMX",
        }

    def fast_precision(self) -> str:
        # Without AMX, bf16 products were measured at two thirds of float32's speed.
        return "bf16" if torch.cpu._is_amx_tile_supported() else "32"

    def channels_last(self) -> bool:
        # tiny-32 trained 7 % faster in float32 with the channels outermost (CPU time of one thread, busy machine);
        # the paper's presets have not been compared on an idle one.
        return False

    def for_few_rows(self, module: Module, rows: int) -> Module:
        if torch.is_autocast_enabled("cpu") or not few_rows.pays(module, rows):
            return module
        return few_rows.reordered(module, rows)  # type: ignore[return-value]  # the same class, unless it is a lone layer

    def compilers(self) -> tuple[str, ...]:
        return (os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"),)

    def synchronize(self) -> None:
        """Nothing is queued on a CPU."""

    def rng_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def trainer_arguments(self, devices: int, precision: str) -> dict[str, Any]:
        strategy = "auto" if devices == 1 else "ddp_find_unused_parameters_true"
        return {"accelerator": "cpu", "devices": devices, "strategy": strategy}


DEVICE = CpuDevice()
