"""The software below an Ascend NPU, looked at without importing PyTorch, whose import may be what fails.

torch_npu follows PyTorch in its first two numbers, and each of its versions is built for one release of CANN.
The most frequent trouble is neither: CANN is installed, and its set_env.sh was not sourced in this shell.

Source: https://gitcode.com/Ascend/pytorch, the table of compatible versions; it is repeated in docs/clusters.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from mergevq.cli.doctor.process import observe

CANN_OF = {
    "2.12.0": "9.1.0",
    "2.11.0": "9.1.0",
    "2.10.0.post4": "9.1.0",
    "2.9.0.post6": "9.1.0",
    "2.9.0.post2": "9.0.0",
    "2.9.0": "8.5.0",
    "2.8.0.post4": "9.0.0",
    "2.8.0.post2": "8.5.0",
    "2.8.0": "8.3.RC1",
    "2.7.1.post8": "9.1.0",
    "2.7.1": "8.3.RC1",
    "2.6.0": "8.2.RC1",
    "2.5.1.post1": "8.2.RC1",
}
"""The CANN that a torch_npu is built for, newest first; others are not in the vendor's table."""

LIBRARIES = ("libascendcl.so", "libhccl.so", "libopapi.so")
_SET_ENV = ("/usr/local/Ascend/cann/set_env.sh", "/usr/local/Ascend/ascend-toolkit/set_env.sh")


@dataclass(frozen=True, slots=True)
class AscendStack:
    """What is there of it."""

    torch: str | None
    torch_npu: str | None
    cann: str | None
    """The version that CANN says of itself; None where it cannot be found."""
    missing: dict[str, str]
    """Libraries of CANN that do not load, and why."""
    driver: str | None
    """What npu-smi says; None where it is absent or fails."""

    def shown(self) -> dict[str, str]:
        """For people."""
        wanted = CANN_OF.get(self.torch_npu or "")
        beside = f" (torch_npu {self.torch_npu} is built for {wanted})" if wanted else ""
        return {
            "torch_npu": self.torch_npu or "not installed",
            "CANN": (self.cann or "not found") + beside,
            "libraries": "; ".join(self.missing.values()) or "all load",
            "driver": self.driver or "npu-smi does not answer",
        }

    def mismatches(self) -> list[tuple[str, str]]:
        """Versions that do not belong together, each with what to do about it."""
        found = []
        if self.torch_npu and self.torch and minor(self.torch_npu) != minor(self.torch):
            found.append(
                (
                    f"torch_npu {self.torch_npu} is for torch {minor(self.torch_npu)} and torch {self.torch} is there",
                    f'pip install "torch=={minor(self.torch_npu)}.*", or the torch_npu of {minor(self.torch)}',
                )
            )
        wanted = CANN_OF.get(self.torch_npu or "")
        if wanted and self.cann and self.cann.lower() != wanted.lower():
            found.append(
                (
                    f"torch_npu {self.torch_npu} is built for CANN {wanted} and CANN {self.cann} is there",
                    f"install CANN {wanted}, or the torch_npu for CANN {self.cann}",
                )
            )
        return found

    def remedy(self) -> str:
        """The first thing to do where no NPU can be used."""
        if self.torch_npu is None:
            version = f" torch-npu=={minor(self.torch)}.*" if self.torch else ""
            return f'pip install "mergevq[npu]"{version}'
        if self.torch and minor(self.torch_npu) != minor(self.torch):
            return self.mismatches()[0][1]
        if self.missing:
            return f"source {set_env()} in this shell"
        if self.driver is None:
            return "install the Ascend driver and firmware, until `npu-smi info` lists the cards"
        if self.mismatches():
            return self.mismatches()[0][1]
        return "see what `npu-smi info` and the reason above say; another process may hold the card"


def look(torch: str | None, torch_npu: str | None, driver: str | None) -> AscendStack:
    """Looks for CANN.

    Args:
        torch, torch_npu: installed versions.
        driver: what npu-smi says.
    """
    missing = {
        step[1]: reason for step, reason in observe("libraries", *LIBRARIES).errors.items() if step[1:]
    }
    return AscendStack(torch, torch_npu, cann_version(), missing, driver)


def cann_version() -> str | None:
    """The version of the CANN whose set_env.sh was sourced."""
    for variable in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        home = Path(os.environ.get(variable, "/nowhere"))
        for name in (f"{platform.machine()}-linux/ascend_toolkit_install.info", "version.cfg"):
            try:
                text = (home / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            version = re.search(r"version\w*=\W*(?:[\d.]+:)?(\d+\.\d+(?:\.\w+)*)", text)
            if version:
                return version[1]
    return None


def set_env() -> str:
    """The script that tells the loader of CANN: the one that is there, or where it is installed by default."""
    home = os.environ.get("ASCEND_HOME_PATH")
    places = [str(Path(home, "set_env.sh")), str(Path(home).parent / "set_env.sh")] if home else []
    return next((place for place in [*places, *_SET_ENV] if Path(place).exists()), _SET_ENV[0])


def minor(version: str) -> str:
    """The first two numbers."""
    return ".".join(version.split(".")[:2])
