"""What `mergevq doctor` looks at. No check raises: what goes wrong becomes a problem with a next action.

In: nothing, or the name of a device. Out: plain values that print and serialise.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

from mergevq.errors import MergeVQError

REQUIRED = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "numpy",
    "scipy",
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

_IMPORTED = ("torch", "torchvision", "numpy", "lightning")
"""Those whose compiled parts are most often broken, so that only an import tells."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is broken."""

    what: str
    action: str
    """What to do about it."""
    fatal: bool = False
    """Whether the device asked for cannot be used."""


@dataclass(slots=True)
class Examination:
    """Everything that was found."""

    system: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str | None] = field(default_factory=dict)
    """Name to version; None where it is not installed."""
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    selected: dict[str, str] = field(default_factory=dict)
    operators: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Device to operator to the implementation taken and those that refused."""
    environment: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 usable, 1 something is broken, 2 the device asked for cannot be used."""
        if any(problem.fatal for problem in self.problems):
            return 2
        return 1 if self.problems else 0

    def attempt(
        self, what: str, action: str, check: Callable[[], ResultT], fatal: bool = False
    ) -> ResultT | None:
        """The result of a check; whatever it raises becomes a problem."""
        try:
            return check()
        except Exception as error:  # a doctor does not fall ill
            reason = " ".join(str(error).split()) or type(error).__name__
            text = reason if isinstance(error, MergeVQError) else f"{what}: {reason}"
            self.problems.append(Problem(text, action, fatal))
            return None


def examine(device: str | None) -> Examination:
    """Looks at everything.

    Args:
        device: the device asked for; None takes MERGEVQ_DEVICE, else the best usable one.
    """
    found = Examination()
    found.system = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }
    found.environment = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith("MERGEVQ_")
    }
    _packages(found)
    _devices(found)
    _select(found, device)
    for name, state in found.devices.items():
        if state["usable"]:
            found.operators[name] = _operators(found, name)
    return found


def _packages(found: Examination) -> None:
    for name in (*REQUIRED, *OPTIONAL):
        found.packages[name] = _version(name)
    for name in REQUIRED:
        if found.packages[name] is None:
            found.problems.append(Problem(f"{name} is not installed", f"pip install {name}"))
    for name in _IMPORTED:
        if found.packages[name] is not None:
            action = f"pip install --force-reinstall {name}"
            found.attempt(f"{name} cannot be imported", action, lambda: importlib.import_module(name))  # noqa: B023


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices(found: Examination) -> None:
    from mergevq.backends import devices

    for name, device in devices().items():
        probe = found.attempt(
            f"the probe of {name} failed", "report it to the author of the device", device.probe
        )
        state: dict[str, Any] = {"usable": bool(probe and probe.usable)}
        state["reason"] = probe.reason if probe else "its probe failed"
        if state["usable"] and probe:
            state["count"] = probe.count
            state["capabilities"] = found.attempt(
                f"{name} does not tell its capabilities", "check its driver", device.capabilities
            )
            state["precision"] = found.attempt(
                f"{name} does not tell its precision", "check its driver", device.fast_precision
            )
        found.devices[name] = state


def _select(found: Examination, device: str | None) -> None:
    from mergevq.backends import select

    taken = found.attempt(
        "no device can be selected",
        "choose a usable one with --device, or mend this one",
        lambda: select(device),
        fatal=True,
    )
    if taken is None:
        return
    if device not in (None, "auto"):
        why = "--device asks for it"
    elif device is None and found.environment.get("MERGEVQ_DEVICE", "auto") not in ("", "auto"):
        why = "MERGEVQ_DEVICE asks for it"
    else:
        absent = [name for name, state in found.devices.items() if not state["usable"]]
        why = "it is the best one here" + (f"; not usable: {', '.join(absent)}" if absent else "")
    found.selected = {"device": taken.name, "why": why}


def _operators(found: Examination, device: str) -> dict[str, dict[str, Any]]:
    """What each operator takes on its example; a call with other shapes may be resolved differently."""
    import torch

    from mergevq.backends import operators

    choices: dict[str, dict[str, Any]] = {}
    for name, operator in operators().items():
        resolution = found.attempt(
            f"operator {name} on {device} cannot be resolved",
            f"use another --device, or report it with the output of `mergevq doctor --device {device}`",
            lambda: operator.resolve(*operator.example(torch.device(device))),  # noqa: B023
        )
        if resolution is not None:
            choices[name] = {"takes": resolution.name, "refused": dict(resolution.rejected)}
    return choices
