"""doctor: its verdicts, and that no check can make it fall over."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mergevq import backends
from mergevq.backends import Probe
from mergevq.cli import checks
from mergevq.cli.checks import OPTIONAL, REQUIRED, examine

CPU = backends.devices()["cpu"]


@pytest.fixture(autouse=True)
def _no_device_asked_for(monkeypatch):
    monkeypatch.delenv("MERGEVQ_DEVICE", raising=False)


def test_a_sound_installation(mergevq_process):
    result = mergevq_process("doctor", "--device", "cpu")
    assert (result.code, result.err) == (0, "")
    for word in ("torch", "cpu is taken: --device asks for it", "bipartite_match", "usable; next: "):
        assert word in result.out


def test_json_says_everything(mergevq_main, monkeypatch):
    monkeypatch.setenv("MERGEVQ_DEVICE", "cpu")
    result = mergevq_main("doctor", "--json")
    values = json.loads(result.out)
    assert result.code == 0 and values["verdict"] == "usable" and values["problems"] == []
    assert values["selected"] == {"device": "cpu", "why": "MERGEVQ_DEVICE asks for it"}
    assert values["environment"]["MERGEVQ_DEVICE"] == "cpu"
    assert set(values["operators"]["cpu"]) == set(backends.operators())
    merge = values["operators"]["cpu"]["merge"]["takes"]
    registered = [implementation.name for implementation in backends.merge.implementations("cpu")]
    assert merge in [*registered, "reference"]


def test_an_unusable_device_is_the_reason_and_2(mergevq_main, monkeypatch):
    monkeypatch.setattr(type(CPU), "probe", lambda self: Probe(False, "it is on holiday"))
    result = mergevq_main("doctor", "--device", "cpu")
    assert result.code == 2 and "device cpu cannot be used: it is on holiday" in result.out
    assert "unusable; next: " in result.out and result.err == ""


def test_an_unknown_device_names_the_nearest(mergevq_main):
    result = mergevq_main("doctor", "--device", "cudaa")
    assert result.code == 2 and "did you mean 'cuda'?" in result.out


def test_a_missing_package_degrades(monkeypatch):
    version = checks._version
    monkeypatch.setattr(
        checks, "_version", lambda name: None if name in ("scipy", "lpips") else version(name)
    )
    found = examine(None)
    assert found.exit_code == 1
    assert [problem.action for problem in found.problems] == ["pip install scipy"]


@pytest.mark.parametrize("broken", ["probe", "capabilities", "fast_precision"])
def test_a_device_that_raises_degrades(monkeypatch, broken):
    def fall(self):
        raise OSError("libdriver.so:\n not found")

    monkeypatch.setattr(type(CPU), broken, fall)
    found = examine("auto")
    assert found.exit_code in (1, 2)
    assert any("libdriver.so: not found" in problem.what for problem in found.problems)


def test_an_operator_and_an_import_that_raise_degrade(monkeypatch, mergevq_main):
    def fall(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(backends.merge, "example", fall)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    result = mergevq_main("doctor")
    assert result.code == 1 and "degraded; next: pip install --force-reinstall torchvision" in result.out
    assert "operator merge on cpu cannot be resolved: no kernel" in result.out


def test_the_lists_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib")
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]

    def name(requirement):
        return requirement.split(">=")[0].split("[")[0]

    assert set(REQUIRED) == {name(requirement) for requirement in project["dependencies"]}
    for package, extra in OPTIONAL.items():
        assert package in {name(requirement) for requirement in project["optional-dependencies"][extra]}
