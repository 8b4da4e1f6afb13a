"""Fixtures of the timings, and what is added to pytest-benchmark's JSON: the machine, and percentiles."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mergevq.backends import Device, select
from mergevq.bench.measuring.recording import environment, percentiles
from mergevq.bench.subjects.runtimes import Where

_SKIPPED = pytest.StashKey[dict[str, str]]()
_LOAD = list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def pytest_configure(config: pytest.Config) -> None:
    """Makes room for the reasons of what is skipped."""
    config.stash[_SKIPPED] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers why a case was skipped."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        item.config.stash[_SKIPPED][item.nodeid.rpartition("/")[2]] = report.longrepr[2].removeprefix(
            "Skipped: "
        )
    return report


@pytest.fixture(scope="session")
def device() -> Device:
    """What the timings run on."""
    return select()


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exported graphs are kept: one folder for all processes of a run, or one that outlives it."""
    kept = os.environ.get("MERGEVQ_BENCH_EXPORTS")
    if kept:
        return Path(kept)
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "bench-exports"


@pytest.fixture
def where(device: Device, threads: int, exports: Path) -> Where:
    """What the run times of a case share; `threads` is one unless the suite says otherwise."""
    return Where(device, threads, exports)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs a case on so many threads; one by default."""
    before = torch.get_num_threads()
    torch.set_num_threads(getattr(request, "param", 1))
    yield torch.get_num_threads()
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Adds what timings depend on, and leaves out the name of the host."""
    machine_info.pop("node", None)
    machine_info["mergevq"] = environment(select()) | {"load_average_before": _LOAD}


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Sequence[Any], output_json: dict[str, Any]
) -> None:
    """Adds the percentiles that pytest-benchmark does not have, and what was skipped, with the reasons."""
    output_json["skipped"] = config.stash[_SKIPPED]
    seconds = {case.fullname: case.stats.data for case in benchmarks if not case.has_error}
    for case in output_json["benchmarks"]:
        case["stats"]["percentiles"] = percentiles(seconds[case["fullname"]])
