"""What is kept beside the timings: the machine that they are from, and percentiles of their rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import mergevq
from mergevq.backends import Device

_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "tensorrt", "tensorrt-rtx")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_BEYOND = 5
"""Rounds that must lie beyond a percentile for it to mean anything."""


def environment(device: Device) -> dict[str, Any]:
    """What timings depend on, as JSON values."""
    return {
        "version": mergevq.__version__,
        "torch": torch.__version__,
        "device": device.name,
        "capabilities": device.capabilities(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in _PACKAGES if _version(name)},
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "spin_count": os.environ.get("GOMP_SPINCOUNT"),
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, and p90, p95 and p99 where enough rounds lie beyond them.

    Args:
        seconds: at least one round.
    """
    found = {"p50": statistics.median(seconds)}
    for percent in (90, 95, 99):
        if len(seconds) * (100 - percent) >= 100 * _BEYOND:
            found[f"p{percent}"] = statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]
    return found
