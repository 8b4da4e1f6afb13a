"""Checkpoints go from one type of device to another."""

from __future__ import annotations

import logging

import pytest
import torch

from mergevq.backends import select
from mergevq.backends.device import Device
from mergevq.config import override
from mergevq.training.engine import checkpoint as checkpoint_module
from mergevq.training.engine.checkpoint import LAST, AtomicCheckpointIO
from mergevq.training.engine.random_state import random_state, restore_random_state
from mergevq.training.tokenizer.run import train_tokenizer


class Card(Device):
    """An accelerator of which only the random generator matters."""

    def __init__(self, name: str):
        self.name = name
        self.state = torch.tensor([1, 2], dtype=torch.uint8)

    def rng_state(self) -> torch.Tensor:
        return self.state.clone()

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state


def test_the_random_state_of_a_device_comes_back():
    before, after = Card("npu"), Card("npu")
    before.state = torch.tensor([7, 8], dtype=torch.uint8)
    restore_random_state(after, random_state(before))
    assert torch.equal(after.state, before.state)


def test_another_devices_random_state_is_left_out_with_a_word(caplog):
    saved = random_state(Card("cuda"))
    npu = Card("npu")
    with caplog.at_level(logging.INFO):
        restore_random_state(npu, saved)
    assert npu.state.tolist() == [1, 2]
    assert "was on cuda and goes on on npu" in caplog.text


@pytest.mark.parametrize("device", [None, select("cpu")])
def test_the_cpus_state_is_not_the_devices_business(device):
    assert random_state(device) is None
    restore_random_state(Card("npu"), None)
    state = torch.get_rng_state()
    restore_random_state(device, random_state(Card("npu")))
    assert torch.equal(torch.get_rng_state(), state)


def test_tensors_are_saved_on_the_cpu(tmp_path, monkeypatch):
    """What is handed on to be written is on the CPU, however deep it lies."""
    moved = []
    move = checkpoint_module.move_data_to_device

    def spy(data, device):
        moved.append(device)
        return move(data, device)

    monkeypatch.setattr(checkpoint_module, "move_data_to_device", spy)
    state = {"state_dict": {"weight": torch.ones(2)}, "deep": [{"state": (torch.zeros(1), 3, "text", None)}]}
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "some.ckpt")
    assert moved == [torch.device("cpu")]
    back = AtomicCheckpointIO().load_checkpoint(tmp_path / "some.ckpt")
    assert back["deep"][0]["state"][1:] == (3, "text", None) and torch.equal(
        back["state_dict"]["weight"], torch.ones(2)
    )


def test_a_run_goes_on_from_an_accelerators_checkpoint(small_run, tmp_path, caplog):
    """On the CPU, with a word about the random state."""
    cpu = select("cpu")
    train_tokenizer(override(small_run, {"train.steps": 4}), tmp_path / "run", cpu)
    path = tmp_path / "run" / LAST
    state = torch.load(path, weights_only=True)
    assert state["mergevq"]["device_rng"] is None
    state["mergevq"]["device_rng"] = random_state(Card("npu"))
    state["mergevq"]["steps_done"] = 3
    torch.save(state, path)
    with caplog.at_level(logging.INFO):
        train_tokenizer(override(small_run, {"train.steps": 4}), tmp_path / "run", cpu)
    assert "was on npu and goes on on cpu" in caplog.text
    assert torch.load(path, weights_only=True)["mergevq"]["steps_done"] == 4
