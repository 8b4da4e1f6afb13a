"""Where ONNX Runtime computes: a provider is chosen by name, and used or refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mergevq.errors import DeviceUnavailableError, UsageError, unknown_name

PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    "cann": ("CANNExecutionProvider", "CPUExecutionProvider"),
}
"""What each name stands for. Those behind the first take the operators that it leaves to them, such as shapes."""


def execution_providers(name: str) -> list[str]:
    """What ONNX Runtime is to be given.

    Raises:
        UsageError: there is no provider of this name.
        DeviceUnavailableError: the installed ONNX Runtime does not have it, or there is none.
    """
    if name not in PROVIDERS:
        raise UsageError(unknown_name("provider", name, PROVIDERS))
    present = runtime_module().get_available_providers()
    if PROVIDERS[name][0] not in present:
        usable = [known for known, wanted in PROVIDERS.items() if wanted[0] in present]
        raise DeviceUnavailableError(
            f"the provider {name} is not in the installed ONNX Runtime; available: {', '.join(usable)}"
        )
    return [provider for provider in PROVIDERS[name] if provider in present]


def check_used(name: str, used: Sequence[str], file: str) -> None:
    """Makes sure that a session has the provider that was asked for: ONNX Runtime only warns when it has not.

    Args:
        name: of the provider.
        used: what the session says.
        file: of the graph, for the message.

    Raises:
        DeviceUnavailableError: it runs elsewhere.
    """
    wanted = PROVIDERS[name][0]
    if not used or used[0] != wanted:
        raise DeviceUnavailableError(
            f"the provider {name} could not be started for {file}: ONNX Runtime would use "
            f"{used[0] if used else 'nothing'} in its place; mend the driver or the libraries that {wanted} needs"
        )


def runtime_module() -> Any:
    """The package onnxruntime, its telemetry off; nothing else imports it.

    Raises:
        DeviceUnavailableError: it is not installed.
    """
    # From 1.29 on it sends what models are run to its makers unless told not to before it is loaded, and leaves a
    # number of the machine in the user's cache folder. Whoever wants that sets the variable to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceUnavailableError(
            "exported graphs need onnxruntime, which cannot be imported; pip install onnxruntime"
        ) from error
    return onnxruntime
