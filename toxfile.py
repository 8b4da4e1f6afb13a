"""Lets every tox environment use one folder: they need the same packages, and PyTorch takes gigabytes.

tox empties a folder when an environment of another name comes to it. The runner here leaves the name
out of that comparison; a change of Python, of dependencies or of constraints still empties the folder.
"""

from __future__ import annotations

from typing import Any

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class SharedInfo(Info):
    """What a folder was made for, whichever environment made it."""

    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Any:
        """As in tox, with one name for all environments."""
        if section == ToxEnv.__name__:
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    """A virtual environment that several tox environments use in turn: `runner = shared`."""

    @staticmethod
    def id() -> str:
        """The name to write in tox.ini."""
        return "shared"

    @property
    def cache(self) -> Info:
        """The record that decides whether the folder can stay."""
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Makes the runner known to tox."""
    register.add_run_env(SharedRunner)
