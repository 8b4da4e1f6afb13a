"""What an import costs, and the one name under which the linked folders can be imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    "lightning",
    "timm",
    "torchvision",
    "matplotlib",
    "skimage",
    "sklearn",
    "lpips",
    "onnx",
    "jsonargparse",
]


def test_import_mergevq_leaves_heavy_packages_alone(run_python):
    code = "import json, sys, mergevq; print(json.dumps(list(sys.modules)))"
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    loaded = json.loads(result.stdout)
    assert "mergevq" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_import_mergevq_is_quick_once_torch_is_there(run_python):
    code = (
        "import torch, time; start = time.process_time(); import mergevq; print(time.process_time() - start)"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    # CPU seconds, so that a busy machine does not matter; the heavy packages take one to five each.
    assert float(result.stdout) < 1.0


def test_imports_write_nothing(run_python):
    result = run_python("-c", "import mergevq, mergevq.backends")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "folder", [name for name in ("backends", "export") if (ROOT / name / "__init__.py").exists()]
)
def test_linked_folder_has_one_name(run_python, folder):
    result = run_python("-c", f"import {folder}", cwd=ROOT)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"mergevq.{folder}" in last
