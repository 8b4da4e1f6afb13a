"""Two processes, one of which is killed: one sentence, a code that is not 0, and in the end the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from mergevq.config import override, to_dict
from mergevq.errors import MergeVQError, NonFiniteError
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.engine.processes.lost_rank import lost_ranks_explained

STEPS = 16
KILLED_AFTER = 4
PATIENCE = 600
"""Seconds for whatever a process is waited for, on a busy machine."""
LAUNCHERS = {
    "lightning": [sys.executable, "-m", "mergevq"],
    "torchrun": [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "mergevq"),
    ],
}
SENTENCE = "another process of the run is gone"


def start(launcher, stage, described, out):
    """Starts a run on two processes as a user would, in a group of its own."""
    launched = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in launched}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = ["train", stage, "--config", described, "--out", out, "--device", "cpu", "--devices", "2"]
    return subprocess.Popen(
        [*LAUNCHERS[launcher], *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Waits for a run to end well."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    assert process.returncode == 0, output


def end(process):
    """Leaves nothing behind, whatever went wrong."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def descendants(pid):
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [process for child in children for process in (int(child), *descendants(child))]


def ranks(process):
    """The processes of the run: rank to process id. Lightning's first process has no rank in its environment."""
    found = {0: process.pid}
    for pid in descendants(process.pid):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for rank in (0, 1):
            if f"LOCAL_RANK={rank}".encode() in variables:
                found[rank] = pid
    return found


def alive(pid):
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def steps_done(out):
    path = out / LAST
    return torch.load(path, weights_only=True)["mergevq"]["steps_done"] if path.exists() else 0


def kill(process, out, rank):
    """SIGKILL to one rank after some steps; returns what the run says, and how it ends by itself."""
    try:
        deadline = time.monotonic() + PATIENCE
        while steps_done(out) < KILLED_AFTER:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        processes = ranks(process)
        assert set(processes) == {0, 1}
        os.kill(processes[rank], signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE)
        while any(map(alive, processes.values())):
            assert time.monotonic() < deadline + PATIENCE
            time.sleep(0.02)
        return output
    finally:
        end(process)


def leaves(value):
    """The tensors and the plain values in nested containers."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in (key, *leaves(value[key]))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def assert_same_checkpoints(one, other):
    states = [torch.load(out / LAST, weights_only=True) for out in (one, other)]
    for part in ("state_dict", "optimizer_states", "mergevq"):
        first, second = (leaves(state[part]) for state in states)
        assert len(first) == len(second) > 0
        for left, right in zip(first, second, strict=True):
            same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
            assert same, part
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("stage", "launcher", "killed"), [("tokenizer", "lightning", 1), ("generator", "torchrun", 0)]
)
def test_run_with_a_killed_rank_ends_and_goes_on(stage, launcher, killed, small_run, generator_run, tmp_path):
    pace = {"train.steps": STEPS, "train.checkpoint_every": 2}
    config = override(small_run, pace) if stage == "tokenizer" else generator_run("rand_ar", **pace)
    described = tmp_path / "run.yaml"
    described.write_text(yaml.safe_dump(to_dict(config)))
    finish(start(launcher, stage, described, tmp_path / "whole"))

    process = start(launcher, stage, described, tmp_path / "killed")
    output = kill(process, tmp_path / "killed", killed)
    assert process.returncode != 0
    said = [line for line in output.splitlines() if line.startswith("mergevq: error: ")]
    assert said and all(SENTENCE in line and "goes on from the last checkpoint" in line for line in said), (
        output
    )
    assert launcher == "torchrun" or "Traceback" not in output, output

    assert KILLED_AFTER <= steps_done(tmp_path / "killed") < STEPS
    finish(start(launcher, stage, described, tmp_path / "killed"))
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/src/third_party/gloo/transport/tcp/pair.cc:544] Connection closed by peer [::1]:7"),
        torch.distributed.DistBackendError("NCCL error in: a.cpp:1, remote process exited\nmore"),
        RuntimeError("HCCL error: timeout"),
    ],
)
def test_failed_collective_becomes_one_sentence(error):
    with pytest.raises(MergeVQError) as caught, lost_ranks_explained():
        raise error
    assert SENTENCE in str(caught.value) and "\n" not in str(caught.value) and ".cc:" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), NonFiniteError("NCCL is a word"), OSError()]
)
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, lost_ranks_explained():
        raise error
    assert caught.value is error


def test_lightnings_observer_speaks_with_our_words(caplog):
    import logging

    from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

    class Dead:
        pid, returncode = 4711, -9

        def poll(self):
            return self.returncode

    observer = _ChildProcessObserver(main_pid=0, child_processes=[Dead()])
    observer._terminate_all = lambda: None
    with caplog.at_level(logging.ERROR, logger="mergevq"), lost_ranks_explained():
        assert observer._run()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and SENTENCE in messages[0] and "process 4711 ended with code -9" in messages[0]
