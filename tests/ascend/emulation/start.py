"""What every Python process of these tests does first, the ranks and workers that a test starts included.

Nothing is imported here. Once somebody imports torch_npu (PyTorch does so itself, as for any user of it), the host
kernels are put in place; before somebody imports torchvision, the operators are declared that it would bring with
it were it built for this PyTorch: its published builds are for CUDA, and timm and torchmetrics import it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

KERNELS = "EMU_NPU_KERNELS"
"""Environment variable: "0" leaves torch_npu's own kernels in place, which the stub of CANN refuses."""


def prepare() -> None:
    """Waits for the imports."""
    sys.meta_path.insert(0, _Watch())


def _host_kernels() -> None:
    if os.environ.get(KERNELS) != "0":
        from emulation.host_kernels import install

        install()


def _torchvision_schemas() -> None:
    import torch

    global _declared
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    _declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declared: Any = None
BEFORE: dict[str, Callable[[], None]] = {"torchvision": _torchvision_schemas}
AFTER: dict[str, Callable[[], None]] = {"torch_npu": _host_kernels}


class _Watch(MetaPathFinder):
    """Finds the modules above as Python would, and loads them with something before or after."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self._looking or name not in {*BEFORE, *AFTER}:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Around(name, spec.loader)
        return spec


class _Around(Loader):
    """Another loader, with what is to happen before and after it."""

    def __init__(self, name: str, loader: Loader) -> None:
        self.name = name
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        BEFORE.get(self.name, _nothing)()
        self.loader.exec_module(module)
        AFTER.get(self.name, _nothing)()


def _nothing() -> None:
    pass
