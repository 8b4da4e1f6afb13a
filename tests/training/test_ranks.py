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
from mergevq.training.checkpoint import LAST

PROGRAM = """
import sys, torch, yaml
from pathlib import Path
from mergevq.backends import select
from mergevq.config import from_dict
from mergevq.training.config import TokenizerRun
from mergevq.training.run import train_tokenizer
from mergevq.training.tokenizer import TokenizerTraining

torch.set_num_threads(1)
out = Path(sys.argv[2])
seen = []
step = TokenizerTraining.training_step

def spy(self, batch, index):
    step(self, batch, index)
    seen.append((self._keep, batch.images.long().sum().item()))

TokenizerTraining.training_step = spy
config = from_dict(TokenizerRun, yaml.safe_load(Path(sys.argv[1]).read_text()))
weights = []
end = TokenizerTraining.on_train_end
TokenizerTraining.on_train_end = lambda self: (end(self), torch.save(
    {"seen": seen, "weights": self.tokenizer.state_dict()}, out.parent / f"rank{self.global_rank}.pt"))
train_tokenizer(config, out, select("cpu"), devices=2)
"""


@pytest.fixture
def two_ranks(tmp_path):
    """Trains on two ranks in processes of their own; returns what each saw and ended with."""

    def train(config):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
        (tmp_path / "program.py").write_text(PROGRAM)
        path = os.pathsep.join(sys.path)
        command = [sys.executable, tmp_path / "program.py", tmp_path / "run.yaml", tmp_path / "run"]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
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
    from mergevq.training.run import train_tokenizer

    config = override(small_run, {"train.steps": 3, "optimizer.clip": 1.0})
    parts = two_ranks(config)
    whole = train_tokenizer(override(config, {"train.batch_size": 8}), tmp_path / "whole", cpu)
    state = torch.load(whole / LAST, weights_only=True)["state_dict"]
    for name, weight in parts[0]["weights"].items():
        torch.testing.assert_close(weight, state[f"tokenizer.{name}"], atol=2e-6, rtol=1e-4)
