"""doctor: its verdicts, its next actions, and that no check can make it fall over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergevq import backends
from mergevq.cli.doctor import checks, process, system
from mergevq.cli.doctor.ascend import AscendStack
from mergevq.cli.doctor.checks import examine
from mergevq.cli.doctor.process import START, Findings, observe
from mergevq.cli.doctor.system import HIDING, OPTIONAL, REQUIRED

KEYS = (
    *("mergevq", "system", "packages", "drivers", "ascend", "devices", "selected", "operators"),
    *("overrides", "environment", "problems", "verdict", "next"),
)
"""Of --json; scripts rely on them."""


@pytest.fixture(autouse=True)
def _no_device_asked_for(monkeypatch):
    for name in ("MERGEVQ_DEVICE", "MERGEVQ_OPS", *HIDING.values()):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(monkeypatch):
    """A machine as other processes find it: everything is well, on the CPU; the test breaks it."""

    class Machine:
        def __init__(self):
            self.imports = Findings(values={("import", name): "1.0" for name in checks.IMPORTED})
            self.devices = Findings(
                values={
                    ("import", "torch"): "2.12.0",
                    ("devices",): ["cpu", "cuda", "npu"],
                    ("select",): "cpu",
                    ("overrides",): {},
                    ("probe", "cpu"): {"usable": True, "reason": "made of sand", "count": 1},
                    ("capabilities", "cpu"): {"colour": "grey"},
                    ("precision", "cpu"): "32",
                    ("distributed", "cpu"): "gloo",
                    ("product", "cpu", "float32"): True,
                    ("product", "cpu", "bfloat16"): True,
                    ("operator", "cpu", "merge"): {
                        "takes": "fast",
                        "refused": {"odd": "why"},
                        "difference": 0,
                    },
                    ("probe", "cuda"): {"usable": False, "reason": "no card", "count": 0},
                    ("probe", "npu"): {"usable": False, "reason": "no card", "count": 0},
                }
            )
            self.without_autoload = None
            self.packages = dict.fromkeys(REQUIRED, "2.12.0") | dict.fromkeys(OPTIONAL)
            self.drivers = {"nvidia-smi": None, "npu-smi": None}
            self.ascend = AscendStack("2.12.0", "2.12.0", "9.1.0", {}, "Total Count : 8")

        def refuse(self, device):
            del self.devices.values["select",]
            self.devices.errors["select",] = f"device {device} cannot be used: no card"

        def observe(self, task, *words, environment=None):
            if task == "imports":
                return self.imports
            return self.without_autoload if environment and self.without_autoload else self.devices

    here = Machine()
    monkeypatch.setattr(checks, "observe", here.observe)
    monkeypatch.setattr(checks, "look", lambda *_: here.ascend)
    monkeypatch.setattr(system, "packages", lambda: here.packages)
    monkeypatch.setattr(system, "drivers", lambda: here.drivers)
    return here


def test_a_sound_installation(mergevq_process):
    result = mergevq_process("doctor", "--device", "cpu", timeout=1200)
    assert (result.code, result.err) == (0, "")
    for word in ("torch", "cpu is taken: --device asks for it", "bipartite_match", "usable; next: "):
        assert word in result.out


def test_json_says_everything(mergevq_main, monkeypatch):
    monkeypatch.setenv("MERGEVQ_DEVICE", "cpu")
    monkeypatch.setenv("MERGEVQ_OPS", "merge=reference")
    result = mergevq_main("doctor", "--json")
    values = json.loads(result.out)
    assert result.code == 0 and values["verdict"] == "usable" and values["problems"] == []
    assert tuple(sorted(values)) == tuple(sorted(KEYS))
    assert values["selected"] == {"device": "cpu", "why": "MERGEVQ_DEVICE asks for it"}
    assert values["environment"]["MERGEVQ_DEVICE"] == "cpu"
    assert values["overrides"] == {"merge": "reference"}
    state = values["devices"]["cpu"]
    assert state["exact_products"] == ["float32", "bfloat16"] and state["distributed"] == "gloo"
    choices = values["operators"]["cpu"]
    assert set(choices) == set(backends.operators())
    assert choices["merge"] == {"takes": "reference", "refused": {}, "difference": 0.0}
    assert all(choice["difference"] < 1e-4 for choice in choices.values())
    assert values["packages"]["torch"] and set(values["packages"]) >= {*REQUIRED, *OPTIONAL, "triton"}


def test_an_unknown_device_names_the_nearest(mergevq_main):
    result = mergevq_main("doctor", "--device", "cudaa")
    assert result.code == 2 and "did you mean 'cuda'?" in result.out
    assert "unusable; next: " in result.out and result.err == ""


def test_text_shows_choices_refusals_and_reasons(machine, mergevq_main):
    result = mergevq_main("doctor")
    assert result.code == 0
    for line in (
        "cpu   usable: made of sand; colour grey, precision 32, distributed gloo, exact products in float32 and "
        "bfloat16",
        "cuda  not usable: no card",
        "cpu is taken: it is the best one here; not usable: cuda, npu",
        "merge  fast (odd refused: why)",
        "usable; next: mergevq demo",
    ):
        assert line in result.out


def test_a_missing_package_degrades(machine):
    machine.packages |= {"tqdm": None, "lpips": None}
    found = examine(None)
    assert found.exit_code == 1
    assert [problem.action for problem in found.problems] == ["pip install tqdm"]


def test_without_torch_nothing_is_usable(machine):
    machine.packages["torch"] = None
    machine.imports = Findings()
    found = examine(None)
    assert found.exit_code == 2 and found.problems[0].action == "pip install torch"


def test_an_import_that_fails_degrades_and_that_of_torch_is_fatal(machine, mergevq_main):
    machine.imports.errors["import", "torchvision"] = "undefined symbol"
    result = mergevq_main("doctor")
    assert result.code == 1 and "degraded; next: pip install --force-reinstall torchvision" in result.out
    machine.imports.errors["import", "torch"] = "libtorch.so: no such file"
    del machine.imports.values["import", "torch"]
    result = mergevq_main("doctor")
    assert result.code == 2 and "next: pip install --force-reinstall torch\n" in result.out
    assert "libtorch.so: no such file" in result.out


@pytest.mark.parametrize(
    ("step", "word"),
    [
        (("probe", "npu"), "npu: probe failed"),
        (("capabilities", "cpu"), "cpu: capabilities failed"),
        (("precision", "cpu"), "cpu: precision failed"),
        (("product", "cpu", "bfloat16"), "cpu: product bfloat16 failed"),
        (("operator", "cpu", "merge"), "operator merge on cpu fails"),
        (("overrides",), "MERGEVQ_OPS"),
    ],
)
def test_whatever_fails_degrades_with_its_reason(machine, mergevq_main, step, word):
    machine.devices.values.pop(step)
    machine.devices.errors[step] = "MERGEVQ_OPS, or a driver: it ended the process with signal 11"
    result = mergevq_main("doctor")
    assert result.code == 1 and word in result.out and "signal 11" in result.out


def test_an_operator_that_computes_something_else_degrades(machine):
    machine.devices.values["operator", "cpu", "merge"]["difference"] = 0.5
    found = examine(None)
    assert found.exit_code == 1 and "fast is 0.5 away from the reference" in found.problems[0].what
    assert "MERGEVQ_OPS=merge=reference" in found.problems[0].action


def test_cuda_asked_for_without_a_driver(machine):
    machine.refuse("cuda")
    found = examine("cuda")
    assert found.exit_code == 2 and found.problems[0].what == "device cuda cannot be used: no card"
    assert found.problems[0].action.startswith("install the NVIDIA driver")
    machine.drivers["nvidia-smi"] = "NVIDIA H100, 81559 MiB, 550.54"
    assert "build of torch" in examine("cuda").problems[0].action


def test_a_card_that_only_its_driver_sees_degrades(machine, monkeypatch):
    machine.drivers["nvidia-smi"] = "NVIDIA H100, 81559 MiB, 550.54"
    found = examine(None)
    assert found.exit_code == 1 and "nvidia-smi lists NVIDIA H100" in found.problems[0].what
    assert examine("cpu").exit_code == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert examine(None).problems[0].action.startswith("unset CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert examine(None).exit_code == 0


def test_autoload_that_breaks_torch(machine, mergevq_main):
    machine.without_autoload = machine.devices
    machine.packages["torch-npu"] = "2.12.0"
    machine.ascend = AscendStack(
        "2.12.0", "2.12.0", None, {"libhccl.so": "libhccl.so: cannot open shared object file"}, None
    )
    machine.devices = Findings(
        errors={("import", "torch"): "Failed to load the backend extension: torch_npu"}
    )
    result = mergevq_main("doctor")
    assert result.code == 1 and "cpu is taken" in result.out
    assert "Failed to load the backend extension" in result.out
    assert "libhccl.so: cannot open shared object file" in result.out
    assert "next: source /usr/local/Ascend/" in result.out
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in result.out
    machine.without_autoload.errors["select",] = "device npu cannot be used: no CANN"
    del machine.without_autoload.values["select",]
    assert mergevq_main("doctor", "--device", "npu").code == 2


def test_processes_that_cannot_be_started(machine, mergevq_main):
    machine.devices = Findings(errors={START: "no process could be started"})
    result = mergevq_main("doctor")
    assert result.code == 2 and "no process could be started" in result.out
    machine.imports = Findings(errors={START: "no process could be started"})
    assert mergevq_main("doctor").code == 2


def test_a_step_that_takes_its_process_along(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    (tmp_path / "leaves.py").write_text("import os, sys\nprint('so long', file=sys.stderr)\nos._exit(3)")
    (tmp_path / "raises.py").write_text("raise RuntimeError('line one\\nline two')")
    monkeypatch.syspath_prepend(tmp_path)
    found = observe("imports", "dies", "json", "leaves", "raises", "colorsys")
    assert set(found.values) == {("import", "json"), ("import", "colorsys")}
    assert found.errors == {
        ("import", "dies"): "it ended the process with signal 11",
        ("import", "leaves"): "it ended the process with code 3: so long",
        ("import", "raises"): "line one line two",
    }


def test_a_step_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(process, "TIMEOUT", 3)
    found = observe("imports", "hangs")
    assert found.errors in (
        {("import", "hangs"): "there was no answer for 3 s"},
        {START: "there was no answer for 3 s"},  # a machine so busy that it did not get there
    )


def test_libraries_that_are_not_there():
    found = observe("libraries", "libno_such_thing.so", "libc.so.6")
    assert set(found.errors) == {("library", "libno_such_thing.so")} and len(found.values) == 1


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo; echo '  NVIDIA   H100, 550  '", "NVIDIA H100, 550"),
        ("echo broken; exit 9", None),
        ("exit 0", None),
    ],
)
def test_the_drivers_tool(tmp_path, monkeypatch, script, answer):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.drivers() == {"nvidia-smi": answer, "npu-smi": None}


def test_the_lists_are_those_of_pyproject():
    tomllib = pytest.importorskip("tomllib")
    path = Path(__file__).resolve().parents[3] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]

    def name(requirement):
        return requirement.split(">=")[0].split("[")[0]

    assert set(REQUIRED) == {name(requirement) for requirement in project["dependencies"]}
    for package, extra in OPTIONAL.items():
        assert package in {name(requirement) for requirement in project["optional-dependencies"][extra]}
