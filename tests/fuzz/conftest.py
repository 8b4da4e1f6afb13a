"""Damaged files: `run.py` says how to run it by hand, and one kind alone. The room mirrors no part of the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mergevq

RUN = Path(__file__).with_name("run.py")


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs the fuzzer in a process of its own, and gives what it found."""
    if sys.platform != "linux":
        pytest.skip("limits of memory, and what a process does, are looked at as Linux shows them")
    home = str(Path(mergevq.__file__).resolve().parents[1])

    def call(*arguments: object) -> dict[str, Any]:
        found = tmp_path_factory.mktemp("fuzz") / "found.json"
        environment = {**os.environ, "PYTHONPATH": home, "MERGEVQ_STRICT": "1"}
        command = [sys.executable, str(RUN), *map(str, arguments), "--json", str(found)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.is_file(), done.stderr
        values: dict[str, Any] = json.loads(found.read_text())
        return values

    return call
