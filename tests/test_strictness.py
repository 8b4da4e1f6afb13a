"""The tests run in strict mode, and a device's own package is used in that device's folder only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergevq.backends import registry

ROOT = Path(__file__).resolve().parents[1]
OWN = {"cuda": "torch.cuda", "npu": "torch_npu"}


def test_the_tests_run_in_strict_mode():
    assert registry.strict() == (os.environ["MERGEVQ_STRICT"] not in ("", "0"))


@pytest.mark.parametrize("package", OWN.values())
@pytest.mark.parametrize(
    "folder",
    ["backends", "backends/cpu", "bench", "export", "mergevq/models", "mergevq/training", "tests/models"],
)
def test_ruff_refuses_a_devices_package_elsewhere(folder, package):
    text = f"import {package}\nimport torch\n\nprint({package}.device_count())\n"
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251"]
    done = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/example.py", "-"],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and f"`{package}` is banned" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("folder", "other"), [("cuda", "npu"), ("npu", "cuda")])
def test_devices_keep_out_of_each_other(folder, other):
    """What ruff cannot say: either folder may use one of the two packages."""
    for path in sorted((ROOT / "backends" / folder).rglob("*.py")):
        names = {name for node in ast.walk(ast.parse(path.read_text())) for name in names_in(node)}
        assert not any(f"{name}.".startswith(f"{OWN[other]}.") for name in names), path


def names_in(node: ast.AST) -> list[str]:
    """The dotted names that a node imports or uses."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
