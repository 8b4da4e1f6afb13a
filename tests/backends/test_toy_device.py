"""A fourth device is one folder: an installed distribution that no file of the package knows of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import mergevq

PROGRAM = """
import torch
from mergevq.backends import devices, select, swiglu
import toy_device

device = select("toy")
gate, value = torch.linspace(-2, 2, 12).reshape(2, 6), torch.arange(12.0).reshape(2, 6)
there = swiglu(gate.to("toy"), value.to("toy"))
assert device is devices()["toy"] and there.device.type == "toy", there.device
torch.testing.assert_close(there.cpu(), swiglu.reference(gate, value))
assert toy_device.CALLS == ["wooden"]
swiglu(gate, value)
assert toy_device.CALLS == ["wooden"]
print(swiglu.resolve(gate[:, :3].to("toy"), value[:, :3].to("toy")).rejected[0][1])
"""


@pytest.fixture
def installed(tmp_path):
    """The environment of a process in which the toy device is installed."""
    site = tmp_path / "site"
    folder = site / "toy-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[mergevq.devices]\ntoy = toy_device:DEVICE\n")
    (site / "toy_device.py").write_text((Path(__file__).parent / "toy_device.py").read_text())
    home = Path(mergevq.__file__).resolve().parents[1]
    path = os.pathsep.join([str(site), str(home)])
    chosen = {name: value for name, value in os.environ.items() if name != "MERGEVQ_DEVICE"}
    return {**chosen, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_its_operator_is_taken_for_its_tensors(run_python, installed):
    done = run_python("-c", PROGRAM, env=installed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 features, an even number is wanted\n"


def test_doctor_lists_it_and_tries_it(run_python, installed):
    done = run_python("-m", "mergevq", "doctor", "--device", "toy", "--json", env=installed, timeout=900)
    values = json.loads(done.stdout)
    assert (done.returncode, values["problems"], done.stderr) == (0, [], "")
    assert values["selected"] == {"device": "toy", "why": "--device asks for it"}
    state = values["devices"]["toy"]
    assert state["usable"] and state["reason"] == "made of wood"
    assert state["capabilities"] == {"material": "wood"} and state["distributed"] == "gloo"
    assert state["exact_products"] == ["float32", "bfloat16"]
    choices = values["operators"]["toy"]
    assert choices["swiglu"]["takes"] == "wooden" and 0 <= choices["swiglu"]["difference"] < 1e-5
    assert choices["merge"] == {"takes": "reference", "refused": {}, "difference": 0.0}
    assert set(choices) == set(values["operators"]["cpu"])
