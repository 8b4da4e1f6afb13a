"""How many machines a run is spread over, and which process this is, as torchrun or SLURM say.

Lightning finds out itself which process this is, but wants to be told the number of nodes, and compares it
with theirs.
"""

from __future__ import annotations

import os

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment

from mergevq.errors import UsageError


def node_count(devices: int) -> int:
    """The number of nodes; 1 where the processes were not started by torchrun or srun.

    Args:
        devices: of each node, one process each.

    Raises:
        UsageError: another number of processes was started on a node.
    """
    if _started_by_torchrun():
        return _agreed("torchrun --nproc-per-node", "LOCAL_WORLD_SIZE", "WORLD_SIZE", devices)
    if started_by_srun():
        return _agreed("srun --ntasks-per-node", "SLURM_NTASKS_PER_NODE", "SLURM_NTASKS", devices)
    return 1


def started_by_srun() -> bool:
    """Whether SLURM started this process as one of its tasks; torchrun, which may stand between, comes first."""
    return not _started_by_torchrun() and SLURMEnvironment.detect()


def is_first_process() -> bool:
    """Whether this is the process that writes: rank 0 of a run, before Lightning has been asked."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # Lightning's own processes have the second
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def _started_by_torchrun() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def _agreed(option: str, local: str, world: str, devices: int) -> int:
    """The nodes of a launcher that started as many processes on each as there are devices."""
    processes = int(os.environ[world])
    here = os.environ.get(local, str(processes) if processes == 1 else "nothing")
    if here != str(devices) or processes % devices:
        raise UsageError(
            f"{option} is {here} and --devices is {devices}, with {processes} processes in all; "
            "both must be the number of devices of each node"
        )
    return processes // devices
