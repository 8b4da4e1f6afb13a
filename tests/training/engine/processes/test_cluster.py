"""The number of nodes, as the launchers' environments give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergevq.backends import select
from mergevq.errors import UsageError
from mergevq.training.engine import launch
from mergevq.training.engine.config import PaceConfig
from mergevq.training.engine.processes.cluster import is_first_process, node_count, started_by_srun

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "32"}
SLURM = {"SLURM_NTASKS": "32", "SLURM_NTASKS_PER_NODE": "8", "SLURM_JOB_NAME": "train"}
ALL = [*TORCHRUN, *SLURM, "SLURM_NNODES", "RANK", "LOCAL_RANK", "SLURM_PROCID"]


@pytest.fixture
def environment(monkeypatch):
    """Sets the launcher's variables, and no others."""

    def set_variables(variables: dict[str, str]) -> None:
        for name in ALL:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    set_variables({})
    return set_variables


@pytest.mark.parametrize(
    ("variables", "devices", "nodes"),
    [
        ({}, 8, 1),
        (TORCHRUN, 8, 4),
        (SLURM, 8, 4),
        ({**SLURM, **TORCHRUN, "WORLD_SIZE": "16"}, 8, 2),  # torchrun within SLURM
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2"}, 1, 2),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}, 1, 1),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, 2, 1),
    ],
)
def test_nodes_of_a_launcher(environment, variables, devices, nodes):
    environment(variables)
    assert node_count(devices) == nodes


@pytest.mark.parametrize(
    ("variables", "devices", "words"),
    [
        (TORCHRUN, 1, "torchrun --nproc-per-node is 8 and --devices is 1, with 32 processes in all"),
        ({**TORCHRUN, "WORLD_SIZE": "12"}, 8, "with 12 processes in all"),
        (SLURM, 4, "srun --ntasks-per-node is 8 and --devices is 4"),
        ({"SLURM_NTASKS": "16", "SLURM_JOB_NAME": "train"}, 8, "srun --ntasks-per-node is nothing"),
    ],
)
def test_processes_that_do_not_fit_the_devices(environment, variables, devices, words):
    environment(variables)
    with pytest.raises(UsageError, match=words):
        node_count(devices)


@pytest.mark.parametrize(
    ("variables", "srun"),
    [({}, False), (TORCHRUN, False), (SLURM, True), ({**SLURM, **TORCHRUN}, False)],
)
def test_who_started_it(environment, variables, srun):
    environment(variables)
    assert started_by_srun() is srun


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # of the second node
        ({"SLURM_PROCID": "1"}, False),
        ({"RANK": "0", "SLURM_PROCID": "1"}, True),  # torchrun within SLURM
    ],
)
def test_first_process(environment, variables, first):
    environment(variables)
    assert is_first_process() is first


@pytest.mark.parametrize("devices", [1, 2])
def test_the_global_batch_counts_all_nodes(environment, devices, tmp_path):
    environment({**TORCHRUN, "LOCAL_WORLD_SIZE": str(devices), "WORLD_SIZE": str(4 * devices)})
    pace = PaceConfig(batch_size=3, accumulate=2, precision="32")
    prepared = launch.prepare(pace, tmp_path, select("cpu"), devices)
    assert (prepared.nodes, prepared.ranks, prepared.images_per_step) == (4, 4 * devices, 24 * devices)
    assert prepared.circumstances["devices"] == 4 * devices


def test_lightning_is_told_of_nodes_and_devices(environment, monkeypatch, tmp_path):
    """One device on each of two nodes needs a distributed strategy."""
    environment({**TORCHRUN, "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2"})
    told = {}
    monkeypatch.setattr(launch, "Trainer", lambda **arguments: told.update(arguments))
    prepared = launch.prepare(PaceConfig(precision="32"), Path(tmp_path), select("cpu"), 1)
    launch._trainer(prepared, lambda log: None, [])
    assert (told["accelerator"], told["devices"], told["num_nodes"]) == ("cpu", 1, 2)
    assert told["strategy"] == select("cpu").trainer_arguments(2, "32")["strategy"] != "auto"
    assert "precision" not in told
