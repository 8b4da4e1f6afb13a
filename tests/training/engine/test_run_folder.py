"""A run folder belongs to one run at a time, whichever stage and however many processes."""

from __future__ import annotations

import os

import pytest
import torch

from mergevq.config import override
from mergevq.errors import ConfigError, UsageError
from mergevq.storage.leftovers import hidden
from mergevq.storage.locks import LOCK, only_writer
from mergevq.training.classifier.run import ClassifierRun, train_classifier
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.engine.run_folder import last_checkpoint, only_run
from mergevq.training.generator.run import train_generator
from mergevq.training.recovery.run import train_recovery
from mergevq.training.tokenizer.run import train_tokenizer


@pytest.mark.parametrize("stage", ["tokenizer", "generator", "recovery", "classifier"])
def test_second_run_in_a_folder_is_refused(stage, small_run, generator_run, recovery_run, cpu, tmp_path):
    judge = ClassifierRun(data="builtin:digits", epochs=1, size=8, workers=0)
    train = {
        "tokenizer": lambda out: train_tokenizer(small_run, out, cpu),
        "generator": lambda out: train_generator(generator_run("raster"), out, cpu),
        "recovery": lambda out: train_recovery(recovery_run, out, cpu),
        "classifier": lambda out: train_classifier(judge, out, cpu),
    }[stage]
    with only_writer(tmp_path / "run"):
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on .*choose another --out") as caught:
            train(tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_ranks_of_a_run_do_not_keep_each_other_out(tmp_path, monkeypatch, name):
    with only_run(tmp_path):
        monkeypatch.setenv(name, "0")
        with pytest.raises(UsageError), only_run(tmp_path):
            pass
        monkeypatch.setenv(name, "1")
        with only_run(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_the_lock(small_run, cpu, tmp_path):
    out = train_tokenizer(small_run, tmp_path / "run", cpu)
    assert not (out / LOCK).exists()


def test_what_killed_runs_left_goes_with_the_next_run(tmp_path):
    """Gigabytes each; also where all steps are done and nothing is written any more."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    kept = []
    for path in (tmp_path / "model.safetensors", tmp_path / LAST, tmp_path / "tokenizer" / "config.json"):
        path.parent.mkdir(exist_ok=True)
        running = hidden(path)
        for left in (running, running.with_name(running.name.replace(f"-{os.getpid()}-", f"-{child}-"))):
            left.write_bytes(b"half")
        kept.append(running)
    assert last_checkpoint(None, tmp_path, {}, (), {}, "pictures") is None
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_a_run_of_a_version_with_fewer_settings_goes_on(small_run, cpu, tmp_path):
    run = override(small_run, {"train.steps": 2})
    path = train_tokenizer(run, tmp_path / "run", cpu) / LAST
    last = torch.load(path, weights_only=True)
    del last["mergevq"]["config"]["data"]["max_pixels"], last["mergevq"]["config"]["keep"]["floor"]
    torch.save(last, path)
    train_tokenizer(run, tmp_path / "run", cpu)
    with pytest.raises(ConfigError, match=r"other settings \(keep\.floor\)"):
        train_tokenizer(override(run, {"keep.floor": 0.5}), tmp_path / "run", cpu)
