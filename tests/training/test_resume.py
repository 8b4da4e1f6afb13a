"""A run that was killed ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

import mergevq
from mergevq.config import override, to_dict
from mergevq.errors import ConfigError
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.engine.stepping import SteppedTraining
from mergevq.training.generator.run import train_generator
from mergevq.training.recovery.run import train_recovery
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.training.tokenizer.run import train_tokenizer

PROGRAM = """
import sys, torch, yaml
from pathlib import Path
from mergevq.backends import select
from mergevq.config import from_dict
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.generator.config import GeneratorRun
from mergevq.training.generator.run import train_generator
from mergevq.training.tokenizer.run import train_tokenizer

torch.set_num_threads(1)
run, train = {"t": (TokenizerRun, train_tokenizer), "g": (GeneratorRun, train_generator)}[sys.argv[3]]
config = from_dict(run, yaml.safe_load(Path(sys.argv[1]).read_text()))
train(config, Path(sys.argv[2]), select("cpu"))
"""


@pytest.fixture
def start(tmp_path):
    """Starts a run in a process of its own."""

    def begin(config, out):
        described = tmp_path / "run.yaml"
        described.write_text(yaml.safe_dump(to_dict(config)))
        (tmp_path / "program.py").write_text(PROGRAM)
        path = os.pathsep.join(sys.path)
        return subprocess.Popen(
            [sys.executable, tmp_path / "program.py", described, out, type(config).__name__[0].lower()],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return begin


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def kill_after(process, checkpoint, steps):
    """SIGKILL to the run and its workers, at whatever it is doing after a checkpoint of `steps` steps."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if checkpoint.exists() and done(checkpoint) >= steps:
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def done(checkpoint):
    return torch.load(checkpoint, weights_only=True)["mergevq"]["steps_done"]


def assert_same(one, other, path=""):
    """Bit for bit, through nested containers."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{path}: {(one != other).sum()} elements differ"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_same(first, second, f"{path}[{i}]")
    else:
        assert one == other, path


def test_killed_twice_equals_never_killed(whole_run, start, tmp_path):
    config = override(whole_run, {"data.workers": 2, "train.steps": 40, "train.checkpoint_every": 3})
    finish(start(config, tmp_path / "whole"))
    for steps in (6, 18):
        process = start(config, tmp_path / "killed")
        kill_after(process, tmp_path / "killed" / LAST, steps)
        assert done(tmp_path / "killed" / LAST) < 40
    finish(start(config, tmp_path / "killed"))
    whole, killed = (torch.load(tmp_path / name / LAST, weights_only=True) for name in ("whole", "killed"))
    for part in ("state_dict", "optimizer_states", "mergevq"):
        assert_same(whole[part], killed[part], part)
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (
        tmp_path / "killed/model.safetensors"
    ).read_bytes()
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [line.split(",")[:4] for line in logs[0]] == [line.split(",")[:4] for line in logs[1]]


@pytest.mark.parametrize("crash", [1, 3, 8])
def test_crash_at_any_share_of_the_run(small_run, cpu, tmp_path, monkeypatch, crash):
    """Also before half of it, where Lightning's own count of batches would end the epoch early."""
    config = override(small_run, {"train.steps": 10, "train.checkpoint_every": 1})
    whole = train_tokenizer(config, tmp_path / "whole", cpu)
    step = TokenizerTraining.training_step

    def crashing(self, batch, index):
        if self.steps_done == crash:
            raise RuntimeError("power cut")
        step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TokenizerTraining, "training_step", crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            train_tokenizer(config, tmp_path / "cut", cpu)
    assert done(tmp_path / "cut" / LAST) == crash
    train_tokenizer(config, tmp_path / "cut", cpu)
    one, other = (torch.load(path / LAST, weights_only=True) for path in (whole, tmp_path / "cut"))
    for part in ("state_dict", "optimizer_states", "mergevq"):
        assert_same(one[part], other[part], part)


def test_older_tokenizer_beside_a_finished_checkpoint_is_renewed(small_run, cpu, tmp_path):
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    expected = mergevq.load(out).state_dict()
    mergevq.save(mergevq.create("tiny-32"), out)  # as if the run had been killed before its last file
    train_tokenizer(small_run, out, cpu)
    assert_same(dict(mergevq.load(out).state_dict()), dict(expected))


def test_other_precision_does_not_continue_a_run(small_run, cpu, tmp_path):
    config = override(small_run, {"train.precision": "auto"})
    out = train_tokenizer(config, tmp_path / "run", cpu)
    other = type(cpu)()
    other.fast_precision = lambda: "bf16" if cpu.fast_precision() == "32" else "32"
    with pytest.raises(ConfigError, match=r"other settings \(precision\)"):
        train_tokenizer(config, out, other)


def test_finished_run_stays_as_it_is(small_run, cpu, tmp_path):
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    train_tokenizer(small_run, out, cpu)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_other_settings_do_not_continue_a_run(small_run, cpu, tmp_path):
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    with pytest.raises(ConfigError, match=r"other settings \(optimizer.rate\)"):
        train_tokenizer(override(small_run, {"optimizer.rate": 1.0}), out, cpu)


def test_logging_settings_may_change(small_run, cpu, tmp_path):
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    train_tokenizer(override(small_run, {"train.log_every": 3, "data.max_failures": 1}), out, cpu)


def assert_same_runs(one, other):
    states = [torch.load(path / LAST, weights_only=True) for path in (one, other)]
    for part in ("state_dict", "optimizer_states", "mergevq"):
        assert_same(states[0][part], states[1][part], part)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_killed_generator_equals_one_never_killed(generator_run, start, cpu, tmp_path):
    config = generator_run("merge_ar", **{"train.steps": 80, "train.checkpoint_every": 3, "data.workers": 1})
    whole = train_generator(config, tmp_path / "whole", cpu)
    process = start(config, tmp_path / "killed")
    kill_after(process, tmp_path / "killed" / LAST, 6)
    assert done(tmp_path / "killed" / LAST) < 80
    assert mergevq.load(tmp_path / "killed").kind == "merge_ar"
    assert_same_runs(whole, train_generator(config, tmp_path / "killed", cpu))


@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar", "recovery"])
def test_crash_of_later_stages(generator_run, recovery_run, cpu, tmp_path, monkeypatch, kind):
    """In the middle of a step, which two passes make."""
    train, config = (
        (train_recovery, recovery_run) if kind == "recovery" else (train_generator, generator_run(kind))
    )
    whole = train(config, tmp_path / "whole", cpu)
    step = SteppedTraining.training_step

    def crashing(self, batch, index):
        if self.steps_done == 3 and not self.at_step_end:
            raise RuntimeError("power cut")
        step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(SteppedTraining, "training_step", crashing)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "cut", cpu)
    assert done(tmp_path / "cut" / LAST) == 2
    torch.manual_seed(7)  # whatever the random state of the process that goes on
    assert_same_runs(whole, train(config, tmp_path / "cut", cpu))


def test_older_generator_beside_a_finished_checkpoint_is_renewed(generator_run, cpu, tmp_path):
    config = generator_run("rand_ar")
    out = train_generator(config, tmp_path / "run", cpu)
    expected = mergevq.load(out)
    older = mergevq.create_generator("nano", "rand_ar", expected.tokenizer)
    mergevq.save(older, out)
    train_generator(config, out, cpu)
    assert_same(dict(mergevq.load(out).state_dict()), dict(expected.state_dict()))


def test_tokens_may_move_but_not_change(generator_run, token_home, cpu, tmp_path):
    import shutil

    config = generator_run("raster")
    out = train_generator(config, tmp_path / "run", cpu)
    moved = shutil.copytree(token_home, tmp_path / "moved")
    elsewhere = {"data.path": str(moved / "tokens"), "data.tokenizer": str(moved / "tok")}
    train_generator(override(config, elsewhere), out, cpu)
    state = torch.load(out / LAST, weights_only=True)
    state["mergevq"]["circumstances"]["tokens"] = "0" * 64
    torch.save(state, out / LAST)
    with pytest.raises(ConfigError, match=r"other settings \(tokens\)"):
        train_generator(config, out, cpu)
