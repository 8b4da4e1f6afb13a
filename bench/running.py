"""Runs suites of an installed package: pytest in a process of its own, whose environment makes timings comparable.

How threads wait must be decided before PyTorch starts: threads that spin while they wait take the cores from the other
engine, whose timings then say more about the neighbour. Nothing is written beside the package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mergevq
from mergevq.bench.groups import files
from mergevq.errors import UsageError

_NO_CASES = 5
"""Pytest's exit code where nothing was selected."""

_SPINS = 10_000
"""How often a thread of PyTorch looks for work before it sleeps, some tenths of a millisecond: it is awake in the next
layer, and asleep when the other engine has its turn. Without any of it (OMP_WAIT_POLICY=PASSIVE) G+R took twice its
time on two threads; ten times as many changed nothing."""

_CONFIGURATION = "[pytest]\npython_files = bench_*.py\naddopts = --import-mode=importlib\n"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to time, and how."""

    groups: Sequence[str] = ()
    """Names of suites; none is all."""
    only: str | None = None
    """Pytest's -k, such as "onnx and batch1"."""
    full: bool = False
    seconds: int | None = None
    """How long the pairs of a case may take."""
    threads: int | None = None
    device: str | None = None
    memory: bool = True
    checkpoint: str | None = None
    export: Path | None = None
    exports: Path | None = None
    """Where exported graphs are kept; by default they are thrown away at the end."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        results: the content of pytest-benchmark's JSON; None where nothing was timed.
        failed: whether a case failed.
        interrupted: whether the run was broken off; the results are those of the cases before.
    """

    results: dict[str, Any] | None
    failed: bool
    interrupted: bool = False


def check_installed() -> None:
    """Raises UsageError where pytest or pytest-benchmark is missing."""
    missing = [name for name in ("pytest", "pytest_benchmark") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"timings need {' and '.join(missing).replace('_', '-')}: pip install mergevq[bench]"
        )


def run(settings: Settings) -> Outcome:
    """Times the suites; progress and failures go to the standard error output.

    Raises:
        UsageError: an unknown suite, a missing package, or settings that leave no case.
    """
    check_installed()
    chosen = files(settings.groups)
    with tempfile.TemporaryDirectory(prefix="mergevq-bench-") as folder:
        work = Path(folder)
        (work / "pytest.ini").write_text(_CONFIGURATION)
        written = work / "timings.json"
        # A session of its own: an interruption from the keyboard reaches it once, from here.
        process = subprocess.Popen(
            _command(settings, chosen, work, written),
            env=_environment(settings, work),
            cwd=work,
            stdout=2,
            start_new_session=True,
        )
        interrupted = False
        try:
            code = process.wait()
        except (KeyboardInterrupt, SystemExit):  # the latter is SIGTERM as a command has it
            interrupted = True
            process.send_signal(signal.SIGINT)
            code = process.wait()
        finally:
            if process.poll() is None:  # nobody else would end a session of its own
                process.kill()
        if code == _NO_CASES:
            raise UsageError(f"no case matches {settings.only!r}; `--only` takes what pytest's -k takes")
        results = json.loads(written.read_text()) if written.is_file() else None
        return Outcome(results, code != 0, interrupted)


def _command(settings: Settings, chosen: Sequence[Path], work: Path, written: Path) -> list[str]:
    command = [sys.executable, "-m", "pytest", *map(str, chosen)]
    command += ["-c", str(work / "pytest.ini"), "--rootdir", str(chosen[0].parent), "-p", "no:cacheprovider"]
    command += ["-q", "-rs", "--disable-warnings", "--basetemp", str(work / "temporary")]
    command += [
        "--benchmark-enable",
        "--benchmark-only",
        "--benchmark-quiet",
        "--benchmark-json",
        str(written),
    ]
    if not settings.full:
        command += ["--benchmark-min-rounds=3", "--benchmark-max-time=0.1"]
    if settings.only is not None:
        command += ["-k", settings.only]
    return command


def _environment(settings: Settings, work: Path) -> dict[str, str]:
    home = str(Path(mergevq.__file__).resolve().parents[1])
    ours: dict[str, Any] = {
        "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GOMP_SPINCOUNT": _SPINS,
        "OMP_NUM_THREADS": settings.threads,
        "MERGEVQ_BENCH": "full" if settings.full else "smoke",
        "MERGEVQ_BENCH_SECONDS": settings.seconds,
        "MERGEVQ_BENCH_THREADS": settings.threads,
        "MERGEVQ_BENCH_MEMORY": None if settings.memory else "0",
        "MERGEVQ_BENCH_CHECKPOINT": settings.checkpoint,
        "MERGEVQ_BENCH_EXPORT": settings.export and settings.export.resolve(),
        "MERGEVQ_BENCH_EXPORTS": (settings.exports or work / "exports").resolve(),
        "MERGEVQ_DEVICE": settings.device,
    }
    # Options of another run of pytest, and that it shared its tests out among processes, are no concern of this one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | {name: str(value) for name, value in ours.items() if value is not None}
