"""Tests on the emulated Ascend NPU; without it they are skipped, and not even imported."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_RUNNER = Path(__file__).with_name("run.py")


class _Skipped(pytest.Module):
    """A test module that is not imported."""

    def collect(self) -> Iterator[pytest.Item]:
        runner = runpy.run_path(str(_RUNNER))
        reason = runner["missing"]() or "they are run by `tox -e npu`"
        pytest.skip(f"tests on the emulated Ascend NPU: {reason}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Imports test modules only where the emulation has been prepared."""
    if "EMU_NPU_LIBRARIES" in os.environ:
        return None
    return _Skipped.from_parent(parent, path=module_path)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python on the given arguments, with the emulated NPU and the mergevq that is under test."""
    import mergevq

    home = Path(mergevq.__file__).resolve().parents[1]
    paths = [os.environ["PYTHONPATH"], str(home)]

    def run(*arguments: str | Path, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
            assert "[emu]" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def token_home(tmp_path_factory: pytest.TempPathFactory, photo_crops: list[tuple[str, Any]]) -> Path:
    """A folder with a tokenizer, `tok`, and the tokens of twelve pictures of two classes, `tokens`."""
    from tiny_runs import write_tokens

    home = tmp_path_factory.mktemp("tokens")
    for number, (label, picture) in enumerate(photo_crops):
        (home / "images" / label).mkdir(parents=True, exist_ok=True)
        picture.save(home / "images" / label / f"{number:02}.png")
    write_tokens(home, home / "images")
    return home
