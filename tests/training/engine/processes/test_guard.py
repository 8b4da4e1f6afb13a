"""Device and precision are what was asked for, or the run stops."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mergevq.backends import select
from mergevq.config import override
from mergevq.errors import DeviceUnavailableError
from mergevq.training.engine import launch
from mergevq.training.engine.processes.guard import DeviceGuard
from mergevq.training.engine.processes.precision import DevicePrecision
from mergevq.training.tokenizer.module import TokenizerTraining
from mergevq.training.tokenizer.run import train_tokenizer

CPU = select("cpu")


def trainer_on(device: str) -> SimpleNamespace:
    return SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


def test_another_device_is_named():
    DeviceGuard(CPU, "32").on_fit_start(trainer_on("cpu"), None)
    with pytest.raises(DeviceUnavailableError, match="was to be on cpu and is on cuda:1"):
        DeviceGuard(CPU, "32").on_fit_start(trainer_on("cuda:1"), None)


def test_a_loss_elsewhere_is_noticed():
    with pytest.raises(DeviceUnavailableError, match="was to be on cpu and is on meta"):
        DeviceGuard(CPU, "32").on_before_backward(None, None, torch.ones((), device="meta"))


@pytest.mark.parametrize(
    ("asked", "dtype", "words"),
    [
        ("bf16", None, "was to be in float32 and bfloat16 on cpu and is in float32;"),
        ("bf16", torch.float16, "is in float32 and float16"),
        ("32", torch.bfloat16, "was to be in float32 on cpu and is in float32 and bfloat16"),
    ],
)
def test_another_precision_is_named(asked, dtype, words):
    autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)
    with autocast, pytest.raises(DeviceUnavailableError, match=words):
        DeviceGuard(CPU, asked).on_before_backward(None, None, torch.ones(()))


def test_the_precision_plugin_is_the_devices_autocast():
    loss = torch.ones(())
    for precision in ("32", "bf16"):
        plugin = DevicePrecision(CPU, precision)
        with plugin.forward_context():
            DeviceGuard(CPU, precision).on_before_backward(None, None, loss)
    assert plugin.precision == "bf16-mixed" and not torch.is_autocast_enabled("cpu")


def test_mixed_precision_reaches_the_forward_pass(small_run, tmp_path, monkeypatch):
    seen = []
    run_pass = TokenizerTraining.run_pass

    def spy(self, batch):
        seen.append(torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype)
        run_pass(self, batch)

    monkeypatch.setattr(TokenizerTraining, "run_pass", spy)
    for precision, dtype in (("bf16", torch.bfloat16), ("32", torch.float32)):
        seen.clear()
        config = override(small_run, {"train.precision": precision, "train.steps": 1})
        train_tokenizer(config, tmp_path / precision, CPU)
        assert seen == [dtype]


def test_a_run_whose_autocast_is_for_another_device_stops(small_run, tmp_path, monkeypatch):
    """As with Lightning's precision string on an accelerator that it does not know."""

    class Elsewhere(DevicePrecision):
        def forward_context(self):
            return torch.autocast("cuda", dtype=torch.bfloat16, enabled=False)

    monkeypatch.setattr(launch, "DevicePrecision", Elsewhere)
    config = override(small_run, {"train.precision": "bf16"})
    with pytest.raises(DeviceUnavailableError, match="and is in float32;"):
        train_tokenizer(config, tmp_path / "run", CPU)
    assert not (tmp_path / "run" / "checkpoints").exists()
