"""Two processes on this machine, over gloo: the ranks agree, and see different pictures."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import yaml

import mergevq
from mergevq.config import override, to_dict
from mergevq.training.engine.checkpoint import LAST

PROGRAM = """
import sys, torch, yaml
from pathlib import Path
from mergevq.backends import select
from mergevq.config import from_dict
from mergevq.training.tokenizer.config import TokenizerRun
from mergevq.training.generator.config import GeneratorRun
from mergevq.training.generator.run import train_generator
from mergevq.training.tokenizer.run import train_tokenizer
from mergevq.training.engine.stepping import SteppedTraining

torch.set_num_threads(1)
out = Path(sys.argv[2])
seen = []
step = SteppedTraining.training_step

def spy(self, batch, index):
    step(self, batch, index)
    data = batch.images if hasattr(batch, "images") else batch.indices
    seen.append((getattr(self, "_keep", 0), data.long().sum().item()))

SteppedTraining.training_step = spy
run, train = {"t": (TokenizerRun, train_tokenizer), "g": (GeneratorRun, train_generator)}[sys.argv[3]]
config = from_dict(run, yaml.safe_load(Path(sys.argv[1]).read_text()))
end = SteppedTraining.on_train_end
SteppedTraining.on_train_end = lambda self: (end(self), torch.save(
    {"seen": seen, "weights": self.trained.state_dict()}, out.parent / f"rank{self.global_rank}.pt"))
train(config, out, select("cpu"), devices=2)
"""


@pytest.fixture
def two_ranks(tmp_path):
    """Trains on two ranks in processes of their own; returns what each saw and ended with."""

    def train(config):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
        (tmp_path / "program.py").write_text(PROGRAM)
        path = os.pathsep.join(sys.path)
        command = [sys.executable, tmp_path / "program.py", tmp_path / "run.yaml", tmp_path / "run"]
        command.append(type(config).__name__[0].lower())
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,  # two ranks on a busy machine
        )
        assert done.returncode == 0, done.stderr
        return [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]

    return train


def test_ranks_agree(whole_run, two_ranks, tmp_path):
    """With the adversary, the self-teacher and accumulation on."""
    first, second = two_ranks(override(whole_run, {"train.steps": 3, "train.checkpoint_every": 1}))
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert [keep for keep, _ in first["seen"]] == [keep for keep, _ in second["seen"]]
    assert not {total for _, total in first["seen"]} & {total for _, total in second["seen"]}
    state = torch.load(tmp_path / "run" / LAST, weights_only=True)
    assert state["mergevq"]["steps_done"] == 3
    assert mergevq.load(tmp_path / "run").config.name == "tiny-32"


def test_two_ranks_equal_one_with_twice_the_batch(small_run, two_ranks, tmp_path, cpu):
    """Every loss is a mean over images or exact over ranks, so that splitting a batch changes nothing."""
    from mergevq.training.tokenizer.run import train_tokenizer

    config = override(small_run, {"train.steps": 3, "optimizer.clip": 1.0, "train.precision": "32"})
    parts = two_ranks(config)
    whole = train_tokenizer(override(config, {"train.batch_size": 8}), tmp_path / "whole", cpu)
    state = torch.load(whole / LAST, weights_only=True)["state_dict"]
    for name, weight in parts[0]["weights"].items():
        torch.testing.assert_close(weight, state[f"tokenizer.{name}"], atol=2e-6, rtol=1e-4)


def test_two_ranks_train_one_generator(generator_run, two_ranks, tmp_path, cpu):
    """As one does with twice the batch, where nothing is drawn; and its folder is whole."""
    from mergevq.training.generator.run import train_generator

    calm = {"model.dropout": 0.0, "model.class_dropout": 0.0, "train.steps": 3, "train.precision": "32"}
    config = generator_run("merge_ar", **calm)
    first, second = two_ranks(config)
    assert not {total for _, total in first["seen"]} & {total for _, total in second["seen"]}
    whole = train_generator(override(config, {"train.batch_size": 8}), tmp_path / "whole", cpu)
    state = torch.load(whole / LAST, weights_only=True)["state_dict"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        torch.testing.assert_close(weight, state[f"model.{name}"], atol=1e-5, rtol=1e-3)
    assert mergevq.load(tmp_path / "run").kind == "merge_ar"


def test_ranks_draw_orders_of_their_own_and_agree(generator_run, two_ranks, tmp_path):
    """With every part of rand_ar, whose remembered positions are buffers."""
    first, second = two_ranks(generator_run("rand_ar", **{"train.steps": 2}))
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    assert mergevq.load(tmp_path / "run").generate([0]).shape == (1, 3, 32, 32)
