"""doctor as a user runs it, where something is broken: packages that are not what they should be come first."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import mergevq

PATIENCE = 1200
"""Seconds; several processes import PyTorch, maybe on a busy machine."""


@pytest.fixture
def broken(tmp_path, mergevq_process):
    """Runs a command where the files given come before everything that is installed."""

    def run(files, *arguments, **variables):
        site = tmp_path / "site"
        for name, text in files.items():
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        home = Path(mergevq.__file__).resolve().parents[1]
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("MERGEVQ_D", "ASCEND"))
        }
        path = os.pathsep.join([str(site), str(home)])
        environment = {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
        return mergevq_process(*arguments, env=environment, timeout=PATIENCE)

    return run


def distribution(name, version, *lines):
    folder = f"{name}-{version}.dist-info"
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{folder}/entry_points.txt": "\n".join(lines),
    }


NO_CANN = {
    **distribution("torch_npu", "2.12.0.post1", "[torch.backends]", "torch_npu = torch_npu:_autoload"),
    "torch_npu/__init__.py": "raise ImportError('libhccl.so: cannot open shared object file: No such file')",
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ImportError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so"),
        ("raise SystemExit(3)", "it ended the process with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ended the process with signal 11"),
        ("def broken(:", "invalid syntax"),
    ],
)
def test_torch_that_cannot_be_imported(broken, text, reason):
    result = broken({"torch/__init__.py": text}, "doctor", "--json")
    values = json.loads(result.out)
    assert (result.code, result.err, values["verdict"]) == (2, "", "unusable")
    assert values["next"] == "pip install --force-reinstall torch"
    assert any(
        "torch cannot be imported" in each["what"] and reason in each["what"] for each in values["problems"]
    )


def test_no_command_line_needs_torch_for_its_help(broken):
    result = broken({"torch/__init__.py": "raise ImportError('no')"}, "doctor", "--help")
    assert (result.code, result.err) == (0, "") and "examples:" in result.out


def test_torch_npu_without_cann(broken):
    """Where `import torch` itself raises, and in another minor version than torch besides."""
    result = broken(NO_CANN, "doctor", "--json", MERGEVQ_DEVICE="npu")
    values = json.loads(result.out)
    assert (result.code, result.err, values["verdict"]) == (2, "", "unusable")
    problems = [problem["what"] for problem in values["problems"]]
    assert any("`import torch` fails" in what and "libhccl.so" in what for what in problems)
    assert any("torch_npu 2.12.0.post1 is for torch 2.12" in what for what in problems)
    assert any("device npu cannot be used" in what for what in problems)
    assert values["next"].startswith('pip install "torch==2.12.*"')
    assert "libhccl.so" in values["ascend"]["libraries"]
    assert values["devices"]["cpu"]["usable"] and values["operators"]["cpu"]["merge"]


def test_device_that_crashes_leaves_the_others(broken):
    plug_in = """
import os, signal
from mergevq.backends import Device

class Crashing(Device):
    name = "meta"
    distributed_backend = "gloo"
    def probe(self):
        os.kill(os.getpid(), signal.SIGSEGV)

DEVICE = Crashing()
"""
    files = {
        **distribution("crashing", "1.0", "[mergevq.devices]", "meta = crashing:DEVICE"),
        "crashing.py": plug_in,
    }
    result = broken(files, "doctor", "--device", "cpu")
    assert result.code == 1 and result.err == ""
    assert "meta: probe failed: it ended the process with signal 11" in result.out
    assert "cpu is taken: --device asks for it" in result.out and "operators on cpu" in result.out
