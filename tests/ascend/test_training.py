"""Training on the NPU ends where it ends on the CPU, goes on where it was killed, and moves between the two."""

from __future__ import annotations

import csv

import pytest
import torch
from tiny_runs import furthest, generator_run, tokenizer_run, train, trained, weights

import mergevq
from mergevq.config import override
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.engine.stepping import SteppedTraining

STEPS = 20
TOLERANCE = 1e-5
KINDS = ["tokenizer", "raster", "merge_ar", "rand_ar"]


@pytest.fixture(scope="module")
def configuration(token_home):
    """The run of a kind."""

    def make(kind, **changes):
        changes = {"train.steps": STEPS} | changes
        return tokenizer_run(**changes) if kind == "tokenizer" else generator_run(token_home, kind, **changes)

    return make


@pytest.fixture(scope="module")
def run(tmp_path_factory, configuration):
    """The folder of a whole run, each of which is made once."""

    home = tmp_path_factory.mktemp("runs")

    def of(kind, device, precision="32"):
        out = home / f"{kind}-{device}-{precision}"
        if not out.exists():
            train(configuration(kind, **{"train.precision": precision}), out, device)
        return out

    return of


def losses(out):
    with (out / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def start_of(config, out):
    """The weights before the first step."""
    return weights(train(override(config, {"train.steps": 1, "optimizer.rate": 1e-30}), out, "cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_float32_ends_where_the_cpu_does(kind, run, configuration, tmp_path):
    cpu, npu = weights(run(kind, "cpu")), weights(run(kind, "npu"))
    assert {tensor.device.type for tensor in npu.values()} == {"cpu"}
    assert furthest(cpu, npu) < TOLERANCE
    assert losses(run(kind, "npu")) == pytest.approx(losses(run(kind, "cpu")), abs=1e-4, rel=1e-4)
    start = start_of(configuration(kind), tmp_path)
    assert furthest(trained(cpu), trained(start)) > 20 * TOLERANCE, "nothing was learnt"


@pytest.mark.parametrize("kind", ["tokenizer", "merge_ar"])
def test_bf16_is_on_and_close(kind, run):
    full, mixed = run(kind, "npu"), run(kind, "npu", "bf16")
    assert furthest(weights(full), weights(mixed)) > 1e-6, "autocast was off"
    assert losses(mixed) == pytest.approx(losses(full), rel=0.1)


@pytest.mark.parametrize("kind", ["tokenizer", "rand_ar"])
def test_goes_on_where_it_was_killed(kind, run, configuration, tmp_path, monkeypatch):
    """On the NPU bit for bit, and on the CPU as far as the CPU's numbers go."""
    config = configuration(kind, **{"train.checkpoint_every": 8})
    step = SteppedTraining.training_step

    def crashing(self, batch, index):
        if self.steps_done == 10:
            raise RuntimeError("power cut")
        step(self, batch, index)

    for place in ("npu", "cpu"):
        with monkeypatch.context() as patch:
            patch.setattr(SteppedTraining, "training_step", crashing)
            with pytest.raises(RuntimeError, match="power cut"):
                train(config, tmp_path / place, "npu")
        saved = torch.load(tmp_path / place / LAST, weights_only=True)
        assert saved["mergevq"]["steps_done"] == 8
        torch.manual_seed(7)  # whatever the random state of the process that goes on
        train(config, tmp_path / place, place)
    whole = weights(run(kind, "npu"))
    assert furthest(whole, weights(tmp_path / "npu")) == 0
    assert furthest(whole, weights(tmp_path / "cpu")) < TOLERANCE


@pytest.mark.parametrize("kind", ["tokenizer", "merge_ar"])
def test_a_run_of_the_npu_loads_on_the_cpu(kind, run):
    loaded, reference = mergevq.load(run(kind, "npu")), mergevq.load(run(kind, "cpu"))
    assert furthest(dict(loaded.state_dict()), dict(reference.state_dict())) < TOLERANCE


def test_another_precision_does_not_go_on(run, configuration):
    config = override(configuration("tokenizer"), {"train.precision": "bf16"})
    with pytest.raises(mergevq.errors.ConfigError, match="precision"):
        train(config, run("tokenizer", "npu"), "npu")
