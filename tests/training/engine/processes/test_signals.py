"""A run that is told to end writes its checkpoint, says so, and goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from mergevq.config import override, to_dict
from mergevq.errors import OutputError, StoppedError
from mergevq.training.engine.checkpoint import LAST, AtomicCheckpointIO
from mergevq.training.engine.processes.signals import requeue
from mergevq.training.engine.stepping import SteppedTraining
from mergevq.training.generator.run import train_generator
from mergevq.training.recovery.run import train_recovery
from mergevq.training.tokenizer.run import train_tokenizer

PARTS = ("state_dict", "optimizer_states", "mergevq")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A task of srun, and an scontrol that writes down what it is asked for."""
    task = {"JOB_ID": 4711, "JOB_NAME": "train", "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS": 1}
    for name, value in (task | {"NTASKS_PER_NODE": 1}).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    path = tmp_path / "bin" / "scontrol"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "asked"


@pytest.fixture
def told(monkeypatch):
    """Has a run be sent a signal in the first pass of a step, and only once."""

    def arrange(number, at):
        step, sent = SteppedTraining.training_step, []

        def telling(self, batch, index):
            if self.steps_done == at and not sent:
                sent.append(os.kill(os.getpid(), number))
            step(self, batch, index)

        monkeypatch.setattr(SteppedTraining, "training_step", telling)

    return arrange


def state(out):
    return torch.load(out / LAST, weights_only=True)


def leaves(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in (key, *leaves(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def assert_same(one, other):
    for part in PARTS:
        first, second = (leaves(state(out)[part]) for out in (one, other))
        assert len(first) == len(second) > 0
        for left, right in zip(first, second, strict=True):
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, part
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.fixture
def stages(whole_run, generator_run, recovery_run):
    """Every stage that goes on, with two passes a step and no checkpoint before the end."""
    rare = {"train.checkpoint_every": 100}
    return {
        "tokenizer": (train_tokenizer, override(whole_run, rare)),
        "generator": (train_generator, generator_run("rand_ar", **rare)),
        "recovery": (train_recovery, override(recovery_run, rare)),
    }


@pytest.mark.parametrize("stage", ["tokenizer", "generator", "recovery"])
def test_terminated_run_says_so_and_goes_on(stages, stage, told, cpu, tmp_path):
    train, config = stages[stage]
    whole = train(config, tmp_path / "whole", cpu)
    before = signal.getsignal(signal.SIGTERM)
    told(signal.SIGTERM, at=2)
    out = tmp_path / "run"
    with pytest.raises(StoppedError) as caught:
        train(config, out, cpu)
    assert caught.value.exit_code == 143
    assert str(caught.value) == (
        f"ended by SIGTERM after step 3 of 6: {out / LAST} holds it, and the same command goes on from there"
    )
    assert state(out)["mergevq"]["steps_done"] == 3 and signal.getsignal(signal.SIGTERM) is before
    assert_same(whole, train(config, out, cpu))


def test_announced_end_of_a_slurm_job_queues_it_again(stages, told, slurm, cpu, tmp_path):
    """Before the first checkpoint, where Lightning's own would be gone on from with the data at 0."""
    train, config = stages["tokenizer"]
    whole = train(config, tmp_path / "whole", cpu)
    told(signal.SIGUSR1, at=1)
    out = tmp_path / "run"
    with pytest.raises(
        StoppedError, match=r"ended by SIGUSR1 after step 2 of 6: .*job 4711 is queued again$"
    ) as caught:
        train(config, out, cpu)
    assert caught.value.exit_code == 128 + signal.SIGUSR1
    assert slurm.read_text() == "requeue 4711\n"
    assert not list(tmp_path.rglob("hpc_ckpt*")) and state(out)["mergevq"]["steps_done"] == 2
    assert_same(whole, train(config, out, cpu))


def test_termination_of_a_slurm_job_queues_nothing(stages, told, slurm, cpu, tmp_path):
    told(signal.SIGTERM, at=0)
    with pytest.raises(StoppedError, match="ended by SIGTERM after step 1 of 6"):
        stages["tokenizer"][0](stages["tokenizer"][1], tmp_path / "run", cpu)
    assert not slurm.exists()


def test_older_checkpoint_of_lightning_is_named_and_not_used(stages, slurm, cpu, tmp_path, caplog):
    train, config = stages["tokenizer"]
    whole = train(config, tmp_path / "whole", cpu)
    out = tmp_path / "run"
    out.mkdir()
    torch.save({**state(whole), "global_step": 3}, out / "hpc_ckpt_1.ckpt")
    train(config, out, cpu)
    assert re.search(r"hpc_ckpt_1\.ckpt was written by Lightning.*it is not used", caplog.text)
    assert_same(whole, out)


def test_signal_in_the_last_step_changes_nothing(stages, told, cpu, tmp_path):
    train, config = stages["recovery"]
    told(signal.SIGTERM, at=5)
    out = train(config, tmp_path / "run", cpu)
    assert state(out)["mergevq"]["steps_done"] == 6


def test_full_disk_is_in_the_sentence(stages, told, cpu, tmp_path, monkeypatch):
    def full(self, checkpoint, path, storage_options=None):
        raise OutputError("cannot write last.ckpt: No space left on device")

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full)
    told(signal.SIGTERM, at=0)
    train, config = stages["recovery"]
    with pytest.raises(
        StoppedError, match=r"after step 1 of 6: cannot write .*No space left.*last checkpoint"
    ) as caught:
        train(config, tmp_path / "run", cpu)
    assert caught.value.exit_code == 143


def test_run_in_another_thread_listens_to_nothing(stages, cpu, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    train, config = stages["recovery"]
    with ThreadPoolExecutor(1) as pool:
        out = pool.submit(train, config, tmp_path / "run", cpu).result()
    assert state(out)["mergevq"]["steps_done"] == 6


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "job 4711_3 is queued again"),
        ("echo no such job >&2; exit 1", "job 4711_3 is not queued again: no such job"),
        ("exit 7", "job 4711_3 is not queued again: scontrol ended with 7"),
        (None, "job 4711_3 is not queued again: scontrol: No such file or directory"),
    ],
)
def test_what_becomes_of_a_job_of_an_array(slurm, tmp_path, monkeypatch, script, said):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    path = tmp_path / "bin" / "scontrol"
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        path.write_text(f"#!/bin/sh\n{script}\n")
    assert requeue() == f"SLURM's {said}"


def start(stage, config, out, described, *more):
    """Starts a run as a user would, in a group of its own."""
    described.write_text(yaml.safe_dump(to_dict(config)))
    launched = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in launched}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = ("-m", "mergevq", "train", stage, "--config", described, "--out", out, "--device", "cpu", *more)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def terminate(process, out, send):
    """SIGTERM after the first line of the log; returns what the run said."""
    try:
        deadline = time.monotonic() + 600
        while not (out / "log.csv").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        send(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=600)
        return output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="says who sent a signal")
@pytest.mark.parametrize(
    ("send", "devices"),
    [
        (os.killpg, 1),
        pytest.param(os.kill, 2, marks=pytest.mark.slow),
        pytest.param(os.killpg, 2, marks=pytest.mark.slow),
    ],
    ids=["group", "one of two", "group of two"],
)
def test_terminated_command(small_run, tmp_path, send, devices):
    """With processes that read, to all of which a group's signal goes too."""
    config = override(small_run, {"train.steps": 200, "train.checkpoint_every": 1000, "data.workers": 2})
    out = tmp_path / "run"
    process = start("tokenizer", config, out, tmp_path / "run.yaml", "--devices", devices)
    output = terminate(process, out, send)
    assert process.returncode == 143, output
    said = [line for line in output.splitlines() if line.startswith("mergevq: error: ")]
    assert len(said) == 1 and "Traceback" not in output, output
    done = re.fullmatch(
        r"mergevq: error: ended by SIGTERM after step (\d+) of 200: .* goes on from there", said[0]
    )
    assert done and state(out)["mergevq"]["steps_done"] == int(done[1])
    assert not list(out.glob(".*"))
