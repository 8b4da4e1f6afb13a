"""What Lightning has to be told about NPUs; importing this registers it.

Lightning knows no NPU. Left to itself it would choose the CPU for an accelerator that it does not know,
make a CUDA stream for DDP, and autocast on CUDA, which trains in float32 without a word. The accelerator
and the strategies here are registered under the names `npu`, `SINGLE` and `DDP`; the precision is the
trainer's plug-in (`mergevq.training.engine.processes.precision`), never Lightning's precision string.

FSDP is not offered, on any device: Lightning's makes its mesh and its autocast for CUDA; and of a sharded network
a rank has neither the whole weights that a run averages and exports, nor the norm that it clips by. The
largest generator, 1.4 billion weights, takes 27 GB with its gradients, its average and its optimiser's state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, StrategyRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SINGLE = "single_npu"
DDP = "ddp_npu"


class NpuAccelerator(Accelerator):
    """The NPUs of a machine."""

    def setup_device(self, device: torch.device) -> None:
        """Makes `device` this process's.

        Raises:
            MisconfigurationException: it is no NPU.
        """
        if device.type != "npu":
            raise MisconfigurationException(f"the device is {device}, an NPU was asked for")
        import torch_npu

        torch_npu.npu.set_device(device)
        torch_npu.npu.config.allow_internal_format = False  # weights stay in the layout that is saved
        # Otherwise every shape of every operator is compiled anew; merging makes many shapes.
        # Some processors have nothing to set: they never compile so, and torch_npu refuses the setting.
        with contextlib.suppress(RuntimeError):
            torch_npu.npu.set_compile_mode(jit_compile=False)

    def get_device_stats(self, device: str | int | torch.device) -> dict[str, Any]:
        """Memory, as torch_npu's allocator counts it."""
        import torch_npu

        return torch_npu.npu.memory_stats(device)

    def teardown(self) -> None:
        """Gives cached memory back."""
        import torch_npu

        torch_npu.npu.empty_cache()

    @staticmethod
    def parse_devices(devices: int | str | Sequence[int]) -> list[int]:
        """Card numbers from a count, a list, "0,2" or -1 for all."""
        if isinstance(devices, str) and "," in devices:
            return [int(part) for part in devices.split(",") if part.strip()]
        if not isinstance(devices, (int, str)):
            return list(devices)
        count = int(devices)
        return list(range(NpuAccelerator.auto_device_count() if count == -1 else count))

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        """The cards of these numbers."""
        return [torch.device("npu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """How many cards there are."""
        import torch_npu

        return torch_npu.npu.device_count()

    @staticmethod
    def is_available() -> bool:
        """Whether there is a usable card."""
        from mergevq.backends.npu import DEVICE

        return DEVICE.probe().usable

    @staticmethod
    def name() -> str:
        """The torch device type."""
        return "npu"


class NpuDDPStrategy(DDPStrategy):
    """Lightning's DDP, over HCCL and without a CUDA stream."""

    strategy_name = DDP

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        return DistributedDataParallel(
            module=model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs
        )

    def _get_process_group_backend(self) -> str:
        return self._process_group_backend or "hccl"

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Waits for the other ranks, on this rank's own card."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier(device_ids=self.determine_ddp_device_ids())


AcceleratorRegistry.register("npu", NpuAccelerator, description="Ascend NPU", override=True)
StrategyRegistry.register(
    SINGLE, SingleDeviceStrategy, description="one Ascend NPU", override=True, device="npu:0"
)
StrategyRegistry.register(
    DDP,
    NpuDDPStrategy,
    description="DDP over HCCL",
    override=True,
    find_unused_parameters=True,
)
