"""Fixtures of the timings, and what is added to pytest-benchmark's JSON: the machine, and percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from mergevq.backends import Device, select
from mergevq.bench.recording import environment, percentiles


@pytest.fixture(scope="session")
def device() -> Device:
    """What the timings run on."""
    return select()


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
    machine_info["mergevq"] = environment(select())


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: Sequence[Any], output_json: dict[str, Any]
) -> None:
    """Adds the percentiles that pytest-benchmark does not have."""
    seconds = {case.fullname: case.stats.data for case in benchmarks if not case.has_error}
    for case in output_json["benchmarks"]:
        case["stats"]["percentiles"] = percentiles(seconds[case["fullname"]])
