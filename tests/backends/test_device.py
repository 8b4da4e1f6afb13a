from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.backends import Device, Probe, check_compiler, device, devices, select
from mergevq.errors import DeviceUnavailableError, UsageError


class Fake(Device):
    def __init__(self, name: str, usable: bool):
        self.name, self.usable = name, usable

    def probe(self) -> Probe:
        return Probe(self.usable, "found" if self.usable else "no such card", int(self.usable))


@pytest.fixture
def known(monkeypatch):
    """Sets which devices exist, and forgets the environment's choice."""
    monkeypatch.delenv("MERGEVQ_DEVICE", raising=False)

    def set_known(**usable: bool) -> None:
        found = {name: Fake(name, value) for name, value in usable.items()}
        monkeypatch.setattr(device, "devices", lambda: found)

    return set_known


@pytest.mark.parametrize(
    ("usable", "best"),
    [
        ({"cpu": True, "cuda": True, "npu": True}, "cuda"),
        ({"cpu": True, "cuda": False, "npu": True}, "npu"),
        ({"cpu": True, "cuda": False}, "cpu"),
        ({"cpu": True, "cuda": False, "elsewhere": True}, "elsewhere"),
    ],
)
def test_auto_takes_the_first_usable(known, usable, best):
    known(**usable)
    assert select().name == select("auto").name == best


def test_the_name_wins_over_the_environment_which_wins_over_auto(known, monkeypatch):
    known(cpu=True, cuda=True, npu=True)
    monkeypatch.setenv("MERGEVQ_DEVICE", "npu")
    assert select().name == "npu"
    assert select("cpu").name == "cpu"
    assert select("auto").name == "cuda"


def test_a_named_device_that_is_unusable_is_an_error_with_the_reason(known, monkeypatch):
    known(cpu=True, cuda=False)
    with pytest.raises(DeviceUnavailableError, match="device cuda cannot be used: no such card"):
        select("cuda")
    monkeypatch.setenv("MERGEVQ_DEVICE", "cuda")
    with pytest.raises(DeviceUnavailableError, match="no such card"):
        select()


def test_no_usable_device_at_all_is_an_error(known):
    known(cpu=False)
    with pytest.raises(DeviceUnavailableError, match="doctor"):
        select()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "did you mean 'cuda'? known: auto, "),
        ("GPU", "did you mean 'cuda'?"),
        ("nvidia", "did you mean 'cuda'?"),
        ("CUDA", "did you mean 'cuda'?"),
        (
            "cuda:1",
            "did you mean 'cuda'? (a device is named by its type; CUDA_VISIBLE_DEVICES=1 chooses one)",
        ),
        ("ascend", "did you mean 'npu'?"),
        ("npu:0", "ASCEND_RT_VISIBLE_DEVICES=0 chooses one"),
        ("cpu:0", "did you mean 'cpu'? known"),
        ("x" * 1000, "unknown device 'xxx"),
    ],
)
def test_what_people_call_a_device_is_understood(name, said):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        select(name)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_compiling_without_a_compiler_is_one_sentence(monkeypatch, tmp_path, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    for variable in ("CXX", "CC"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UsageError, match=r"torch\.compile needs a compiler, and g.* is not on the PATH"):
        check_compiler(name)
    (tmp_path / "own").touch(mode=0o755)
    monkeypatch.setenv("CXX", "own")
    monkeypatch.setenv("CC", "own")
    check_compiler(name)
    check_compiler("a type that nobody has described")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="unknown device 'cdua'; did you mean 'cuda'"):
        select("cdua")


@pytest.mark.parametrize("found", devices().values(), ids=lambda found: found.name)
def test_every_device_describes_itself(found):
    probe = found.probe()
    assert probe.reason and (probe.count > 0) == probe.usable
    assert found.distributed_backend and found.autocast_dtype() == torch.bfloat16
    assert found.trainer_arguments(1, "32")["accelerator"] == found.name
    assert found.trainer_arguments(2, "32")["devices"] == 2
    if probe.usable:
        assert all(isinstance(value, str) for value in found.capabilities().values())
        assert found.fast_precision() in ("32", "bf16")
        found.synchronize()
    else:
        with pytest.raises(DeviceUnavailableError):
            select(found.name)


@pytest.mark.parametrize("where", ["device_count", "is_available", "get_device_name"])
def test_a_probe_that_meets_a_broken_driver_gives_the_reason(monkeypatch, where):
    def broken(*_, **__):
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.version, "cuda", "99.0")
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    for name in ("device_count", "is_available", "get_device_name"):
        monkeypatch.setattr(f"torch.cuda.{name}", broken if name == where else lambda *_: 1)
    probe = devices()["cuda"].probe()
    assert not probe.usable and "driver too old" in probe.reason


def test_a_probe_that_cannot_allocate_gives_the_reason(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.version, "cuda", "99.0")
    monkeypatch.setattr(torch, "zeros", broken)
    for name in ("device_count", "is_available"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: 1)
    probe = devices()["cuda"].probe()
    assert not probe.usable and "out of memory" in probe.reason


def test_cpu_random_state_is_restored():
    cpu = select("cpu")
    state = cpu.rng_state()
    first = torch.rand(3)
    cpu.set_rng_state(state)
    assert torch.equal(torch.rand(3), first)


def test_autocast_follows_the_precision():
    cpu = select("cpu")
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with cpu.autocast("bf16"):
        assert layer(x).dtype == torch.bfloat16
    with cpu.autocast("32"):
        assert layer(x).dtype == torch.float32


PLUG_IN = """
import torch
from mergevq.backends import merge
from mergevq.backends.device import Device, Probe

class Meta(Device):
    name = "meta"
    distributed_backend = "fake"
    def probe(self):
        return Probe(True, "always there", 1)

@merge.impl("meta", name="plugged")
def merge_plugged(x, size, assign, length):
    return x, size

DEVICE = Meta()
NOT_A_DEVICE = 3
CPU_AGAIN = type("Again", (Meta,), {"name": "cpu"})()
"""

LOOK = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import torch
from mergevq.backends import devices, merge, select
print("devices", *devices())
print("auto", select().name)
print("merge", merge.resolve(torch.ones(1, device="meta")).name)
print("cpu", type(devices()["cpu"]).__name__)
"""


def plug_in(folder: Path, *entries: str) -> None:
    """A distribution as an installer leaves it."""
    (folder / "plugged.py").write_text(PLUG_IN)
    info = folder / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mergevq.devices]\n" + "\n".join(entries) + "\n")


def look(run_python, folder: Path) -> list[str]:
    home = str(Path(mergevq.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([home, str(folder)]), "MERGEVQ_DEVICE": ""}
    result = run_python("-c", LOOK, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.skipif(select("auto").name != "cpu", reason="auto takes the accelerator of this machine")
def test_a_device_from_another_distribution_is_found(run_python, tmp_path):
    plug_in(tmp_path, "meta = plugged:DEVICE")
    lines = look(run_python, tmp_path)
    assert lines[0].split()[1:3] == ["cpu", "cuda"] and lines[0].endswith("meta")
    assert lines[1:3] == ["auto meta", "merge plugged"]


def test_a_broken_plug_in_is_reported_and_passed_over(run_python, tmp_path):
    plug_in(
        tmp_path, "gone = no_such_module:DEVICE", "odd = plugged:NOT_A_DEVICE", "twice = plugged:CPU_AGAIN"
    )
    reports = look(run_python, tmp_path)
    assert any("gone (no_such_module:DEVICE)" in line for line in reports)
    assert any("odd (plugged:NOT_A_DEVICE)" in line for line in reports)
    assert any("plugged:CPU_AGAIN" in line and "already there" in line for line in reports)
    assert reports[-1] == "cpu CpuDevice"


def test_the_entry_points_of_this_package_are_no_second_device(run_python, tmp_path):
    """An installed mergevq declares its own folders as entry points; that is not worth a warning."""
    plug_in(tmp_path, "cpu = mergevq.backends.cpu:DEVICE", "cuda = mergevq.backends.cuda:DEVICE")
    lines = look(run_python, tmp_path)
    assert lines[0].startswith("devices ")


def test_importing_the_package_starts_no_accelerator(run_python):
    code = "import mergevq, torch; print(torch.cuda.is_initialized(), torch.get_num_threads() > 0)"
    assert run_python("-c", code).stdout.split() == ["False", "True"]
