"""Variables of a launcher, genuine and left over."""

from __future__ import annotations

import os

import pytest

from mergevq.backends import select
from mergevq.errors import UsageError
from mergevq.training.engine import launch
from mergevq.training.engine.config import PaceConfig
from mergevq.training.engine.processes.launcher import PARENT, check_launcher

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
}
ALLOCATION = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NAME": "train",
    "SLURM_JOB_ID": "4711",
}
TASK = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_STEP_ID": "0"}
LIGHTNINGS = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0", PARENT: str(os.getppid())}


@pytest.fixture
def environment(monkeypatch):
    """Sets the launcher's variables, and no others."""

    def set_variables(variables: dict[str, str]) -> None:
        for name in {*TORCHRUN, *ALLOCATION, *TASK, *LIGHTNINGS}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({}, 8),
        (TORCHRUN, 2),
        (ALLOCATION | TASK, 2),
        (ALLOCATION | TASK | TORCHRUN, 2),
        (ALLOCATION | {"SLURM_JOB_NAME": "bash"}, 2),  # which Lightning takes for no launcher
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}, 1),  # a job's own script
        (LIGHTNINGS, 2),
        ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, 1),  # as some platforms always have them
    ],
)
def test_genuine_launchers(environment, variables, devices):
    environment(variables)
    check_launcher(devices)


@pytest.mark.parametrize(
    ("variables", "devices", "said"),
    [
        (
            {"LOCAL_RANK": "0"},
            2,
            "has LOCAL_RANK=0, but neither torchrun nor srun .*: unset LOCAL_RANK, or start",
        ),
        ({"LOCAL_RANK": "1"}, 1, "unset LOCAL_RANK, or start it with torchrun or srun"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, "RANK=1, WORLD_SIZE=2, but .*: unset RANK WORLD_SIZE"),
        (LIGHTNINGS | {PARENT: "1"}, 2, "unset LOCAL_RANK WORLD_SIZE"),
        (
            ALLOCATION,
            2,
            "has SLURM_NTASKS=2, but srun did not start this process: unset SLURM_NTASKS, or start",
        ),
        (ALLOCATION | {"SLURM_PROCID": "0"}, 2, "unset SLURM_NTASKS"),  # a job's own script, and two tasks
        ({"SLURM_NTASKS": "1"}, 1, "unset SLURM_NTASKS"),
        (
            {"TORCHELASTIC_RUN_ID": "x"},
            1,
            "has TORCHELASTIC_RUN_ID=x, but torchrun did not start this process",
        ),
    ],
)
def test_what_is_left_over_is_named(environment, variables, devices, said, tmp_path):
    environment(variables)
    with pytest.raises(UsageError, match=said):
        launch.prepare(PaceConfig(precision="32"), tmp_path, select("cpu"), devices)
