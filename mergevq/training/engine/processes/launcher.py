"""Whether a launcher is there that started this process, where the environment says so.

The variables of torchrun, srun and Lightning outlive them in an interactive shell, a container or an allocation.
A run that believed them would wait for processes that nobody starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from lightning.fabric.plugins.environments import SLURMEnvironment

from mergevq.errors import UsageError

PARENT = "MERGEVQ_LAUNCHER"
"""Set by a run before Lightning starts its other processes: the number of the process that does."""

_PLACE = ("LOCAL_RANK", "RANK", "WORLD_SIZE")


def check_launcher(devices: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuses variables of a launcher that did not start this process.

    Args:
        devices: of each node, one process each.
        environment: of the process.

    Raises:
        UsageError: the variables to unset are named.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        if "WORLD_SIZE" not in environment:
            raise _stale(["TORCHELASTIC_RUN_ID"], environment, "torchrun")
    elif SLURMEnvironment.detect():
        if not _is_task_of_srun(environment):
            raise _stale(["SLURM_NTASKS"], environment, "srun")
    elif environment.get(PARENT) != str(os.getppid()) and _waits(devices, environment):
        raise _stale([name for name in _PLACE if name in environment], environment, "torchrun nor srun")


def mark_launcher() -> None:
    """For the processes that Lightning starts: that this one, their parent, is there."""
    os.environ[PARENT] = str(os.getpid())


def _is_task_of_srun(environment: Mapping[str, str]) -> bool:
    """A job's own script is like a task where the job has one; several need srun."""
    started = "SLURM_STEP_ID" in environment or environment["SLURM_NTASKS"] == "1"
    return started and "SLURM_PROCID" in environment


def _waits(devices: int, environment: Mapping[str, str]) -> bool:
    """Whether a run would take itself for one of several processes, or leave it to others to start them."""
    alone = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    elsewhere = any(environment.get(name, value) != value for name, value in alone.items())
    return elsewhere or (devices > 1 and "LOCAL_RANK" in environment)


def _stale(names: list[str], environment: Mapping[str, str], launcher: str) -> UsageError:
    shown = ", ".join(f"{name}={environment[name]}" for name in names)
    subject = f"neither {launcher}" if " nor " in launcher else launcher
    verb = "started" if " nor " in launcher else "did not start"
    return UsageError(
        f"the environment has {shown}, but {subject} {verb} this process: unset {' '.join(names)}, "
        f"or start it with {launcher.replace(' nor ', ' or ')}"
    )
