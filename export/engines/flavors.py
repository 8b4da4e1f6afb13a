"""TensorRT and TensorRT-RTX under one name: the only module that imports either.

Their logger is one for the whole process, so each flavour is set up once and stays.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from mergevq.errors import DeviceUnavailableError, UsageError, unknown_name

Flavor = Literal["tensorrt", "tensorrt-rtx"]
FLAVORS: tuple[Flavor, ...] = get_args(Flavor)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Toolkit:
    """A flavour as it is installed.

    Attributes:
        flavor: its name.
        module: the package.
        version: exactly; engines of TensorRT-RTX never cross versions, those of TensorRT only on demand.
        logger: hands on to `logging`; what the package makes must not outlive it.
        errors: the latest errors that it was told, the newest last.
    """

    flavor: Flavor
    module: Any
    version: str
    logger: Any
    errors: deque[str]

    @property
    def targets(self) -> list[str]:
        """Compute capabilities that it can build for without such a card, "8.6" say; empty if it needs the card."""
        known = getattr(self.module, "ComputeCapability", None)
        if known is None:
            return []
        return [_dotted(name) for name in known.__members__ if name.startswith("SM")]

    @property
    def name(self) -> str:
        """With the version, for messages."""
        return f"{'TensorRT' if self.flavor == 'tensorrt' else 'TensorRT-RTX'} {self.version}"

    def reason(self) -> str:
        """The latest error, for messages."""
        return self.errors[-1] if self.errors else "it gives no reason"


def toolkit(flavor: str = "auto") -> Toolkit:
    """A flavour by name; "auto" takes the first that is installed.

    Raises:
        UsageError: there is no such flavour.
        DeviceUnavailableError: it is not installed.
    """
    if flavor not in ("auto", *FLAVORS):
        raise UsageError(unknown_name("flavour", flavor, ["auto", *FLAVORS]))
    found = installed(FLAVORS if flavor == "auto" else [flavor])
    if not found:
        wanted = FLAVORS if flavor == "auto" else (flavor,)
        extras = " or ".join(f"pip install mergevq[{each}]" for each in wanted)
        raise DeviceUnavailableError(
            f"engines need {' or '.join(wanted)}, which cannot be imported; {extras}"
        )
    return found[0]


def installed(flavors: Sequence[str] = FLAVORS) -> list[Toolkit]:
    """Those flavours that can be imported."""
    found = []
    for flavor in flavors:
        try:
            module = _rtx() if flavor == "tensorrt-rtx" else _datacenter()
        except (ImportError, OSError) as error:  # libraries that are missing are one or the other
            log.debug("%s cannot be imported: %s", flavor, error)
            continue
        found.append(_set_up(module, "tensorrt-rtx" if flavor == "tensorrt-rtx" else "tensorrt"))
    return found


def _datacenter() -> Any:
    import tensorrt

    return tensorrt


def _rtx() -> Any:
    import tensorrt_rtx

    return tensorrt_rtx


@lru_cache
def _set_up(module: Any, flavor: Flavor) -> Toolkit:
    errors: deque[str] = deque(maxlen=20)
    return Toolkit(flavor, module, module.__version__, _logger(module, errors), errors)


def _logger(module: Any, errors: deque[str]) -> Any:
    severities = module.ILogger.Severity

    class Logger(module.ILogger):
        """Hands on to `logging`, and remembers errors for the exception that they end in."""

        def __init__(self) -> None:
            super().__init__()  # the bindings call virtual methods only where this was done

        def log(self, severity: Any, message: str) -> None:
            if severity in (severities.ERROR, severities.INTERNAL_ERROR):
                errors.append(message.strip())
            log.debug("%s: %s", module.__name__, message)

    return Logger()


def _dotted(name: str) -> str:
    """SM86 to 8.6, SM120 to 12.0."""
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"
