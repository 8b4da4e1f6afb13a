from __future__ import annotations

import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.bench.measuring import paired
from mergevq.bench.measuring.paired import affordable, comparison, is_contaminated, quartiles, time_in_pairs

SECONDS = st.floats(1e-5, 1e2)


class FakeBenchmark:
    """pytest-benchmark's fixture as far as pairs need it."""

    disabled = False

    def __init__(self):
        self.extra_info = {}
        self.stats = self
        self.data = []

    def pedantic(self, run, setup=None, teardown=None, rounds=1):
        for _ in range(rounds):
            setup()
            start = time.perf_counter()
            result = run()
            self.data.append(time.perf_counter() - start)
            teardown()
        self.stats.stats = self
        return result


@pytest.mark.parametrize(
    ("ratio", "alone", "contaminated"),
    [
        (1.0, 1.0, False),
        (1.0, 1.14, False),
        (1.14, 1.0, False),
        (1.0, 1.16, True),
        (1.16, 1.0, True),
        (7, 1, True),
    ],
)
def test_more_than_15_percent_apart_is_contaminated(ratio, alone, contaminated):
    assert is_contaminated(ratio, alone) == contaminated


@given(SECONDS, SECONDS)
def test_contamination_does_not_depend_on_the_direction(ratio, alone):
    assert is_contaminated(ratio, alone) == is_contaminated(alone, ratio)
    assert is_contaminated(ratio, alone) == is_contaminated(1 / ratio, 1 / alone)


def test_a_ratio_is_of_neighbours_not_of_medians():
    """A machine that becomes slower in the middle of a run changes both of a pair."""
    own, baseline = [1.0, 1.0, 10.0, 10.0, 10.0], [2.0, 2.0, 20.0, 20.0, 20.0]
    found = comparison(own, baseline, [1.0], [2.0])
    assert found["ratio"] == found["ratio_q1"] == found["ratio_q3"] == 2 and not found["contaminated"]
    assert comparison(own, baseline, [1.0], [1.0])["contaminated"]


@given(st.lists(SECONDS, min_size=2, max_size=30))
def test_quartiles_are_ordered_and_within(values):
    low, middle, high = quartiles(values)
    assert min(values) <= low <= middle <= high <= max(values)
    assert middle == pytest.approx(statistics.median(values))


@pytest.mark.parametrize(("once", "rounds"), [(1e-4, 100), (1.0, 12), (5.0, 3), (20.0, 2)])
def test_rounds_that_twelve_seconds_allow(once, rounds):
    assert affordable(once, 12.0) == rounds


def test_the_baseline_runs_before_and_after_in_turn(monkeypatch):
    calls = []
    monkeypatch.setattr(paired, "affordable", lambda once, seconds: 4)
    benchmark = FakeBenchmark()
    result = time_in_pairs(
        benchmark, lambda: calls.append("run") or "result", lambda: calls.append("base"), 1.0
    )
    assert result == "result"
    pairs = [tuple(calls[4 + 2 * number : 6 + 2 * number]) for number in range(4)]  # after two warm-ups each
    assert pairs == [("base", "run"), ("run", "base")] * 2
    assert calls[12:] == ["run", "run", "base", "base"]  # alone
    assert {"ratio", "ratio_q1", "ratio_q3", "alone_ratio", "contaminated"} == set(benchmark.extra_info)


def test_a_disabled_benchmark_runs_once(benchmark):
    if benchmark.enabled:
        pytest.skip("benchmarks are enabled")
    calls = []
    time_in_pairs(benchmark, lambda: calls.append("run"), lambda: calls.append("base"), 1.0)
    assert calls == ["run"] and not benchmark.extra_info
