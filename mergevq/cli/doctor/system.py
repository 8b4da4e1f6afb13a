"""What `mergevq doctor` can tell without importing anything heavy: versions, drivers, environment variables."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

REQUIRED = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "numpy",
    "pillow",
    "scikit-image",
    "scikit-learn",
    "matplotlib",
    "safetensors",
    "pyyaml",
    "tqdm",
)
"""Distributions that mergevq cannot do without."""

OPTIONAL = {
    "lpips": "perceptual",
    "torch-fidelity": "fidelity",
    "tensorboard": "tensorboard",
    "huggingface-hub": "hub",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
    "torch-npu": "npu",
}
"""Distributions that a part needs, with the extra that installs them."""

COMPANIONS = ("triton",)
"""Distributions that PyTorch brings along where it can use them."""

TOOLS = {
    "cuda": ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
    "npu": ("npu-smi", "info", "-l"),
}
"""The driver's own tool for a device, which tells of cards that PyTorch cannot use."""

HIDING = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
"""The variable that hides cards of a device from a process, but not from the tool."""

_PREFIXES = ("ACL_", "ASCEND_", "CUDA_", "HCCL_", "MERGEVQ_", "NCCL_", "OMP_", "PYTORCH_", "TORCH_")
_VARIABLES = ("INF_NAN_MODE_ENABLE", "MASTER_ADDR", "MASTER_PORT", "RANK", "TASK_QUEUE_ENABLE", "WORLD_SIZE")
_TOOL_SECONDS = 60


def system() -> dict[str, str]:
    """Python and the platform."""
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }


def packages() -> dict[str, str | None]:
    """Distribution to version; None where it is not installed."""
    return {name: _version(name) for name in (*REQUIRED, *COMPANIONS, *OPTIONAL)}


def drivers() -> dict[str, str | None]:
    """The driver's tool to the first line of its answer; None where it is absent or fails."""
    return {command[0]: _answer(command) for command in TOOLS.values()}


def environment() -> dict[str, str]:
    """The variables that are set and change what runs, or how."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIXES) or name in _VARIABLES
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except Exception:  # of a distribution there may be a part
        return None


def _answer(command: tuple[str, ...]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TOOL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    return lines[0] if done.returncode == 0 and lines else None
