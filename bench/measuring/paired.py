"""A call timed beside another: ratios within a run, and the control that says whether the neighbour disturbed it.

Timings taken minutes apart differ because the machine does. So each round of a call is neighboured by a round of its
baseline, before it and after it in turn, and the median of the ratios is what counts. Two engines in one process may
get in each other's way, though (the threads of one spin while the other computes), and so each is timed alone too:
where the ratio of the two alone is another, the row is contaminated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

CONTAMINATED = 1.15
"""By what factor the ratio of calls timed alone may differ from that of neighbours."""

Call = Callable[[], Any]


def time_in_pairs(benchmark: BenchmarkFixture, run: Call, baseline: Call, seconds: float) -> Any:
    """Times a call beside its baseline, and both alone; what was found goes into `extra_info`.

    Args:
        benchmark: of the case.
        run: what is timed; it returns when it is done.
        baseline: what it is compared with, likewise.
        seconds: how long the pairs may take, though there are three of them, or two of slow calls, in any case.

    Returns:
        What `run` returns.
    """
    if benchmark.disabled:
        return benchmark.pedantic(run)
    alone = warmed(run), warmed(baseline)
    rounds = affordable(sum(alone), seconds)
    partner = _Partner(baseline)
    result = benchmark.pedantic(run, setup=partner.before, teardown=partner.after, rounds=rounds)
    few = max(2, rounds // 2) if sum(alone) < _SLOW else 1
    own_alone = [_seconds(run) for _ in range(few)]
    base_alone = [_seconds(baseline) for _ in range(few)]
    rounded: Any = benchmark.stats  # there is one of every benchmark that ran
    benchmark.extra_info |= comparison(rounded.stats.data, partner.seconds, own_alone, base_alone)
    return result


def time_by_itself(benchmark: BenchmarkFixture, run: Call, seconds: float) -> Any:
    """Times a call that has no baseline; the arguments are those of `time_in_pairs`."""
    if benchmark.disabled:
        return benchmark.pedantic(run)
    return benchmark.pedantic(run, rounds=affordable(warmed(run), seconds))


def warmed(run: Call) -> float:
    """Calls twice, as the first call may compile or allocate; the seconds of the second."""
    run()
    return _seconds(run)


_SLOW = 10.0
"""Seconds of a pair from which on fewer rounds have to do."""


def affordable(once: float, seconds: float) -> int:
    """How many rounds of `once` seconds fit: at least three, two where they are slow, at most a hundred."""
    return min(max(int(seconds / once), 3 if once < _SLOW else 2), 100)


def comparison(
    own: Sequence[float],
    baseline: Sequence[float],
    own_alone: Sequence[float],
    baseline_alone: Sequence[float],
) -> dict[str, Any]:
    """What goes on record of a call and its baseline; a ratio of 2 is twice as fast as the baseline.

    Args:
        own: seconds of each round.
        baseline: seconds of the neighbouring rounds.
        own_alone: seconds without a neighbour.
        baseline_alone: the same of the baseline.

    Returns:
        ratio, its quartiles ratio_q1 and ratio_q3, alone_ratio, and whether the row is contaminated.
    """
    ratios = [theirs / ours for ours, theirs in zip(own, baseline, strict=True)]
    low, middle, high = quartiles(ratios)
    alone = statistics.median(baseline_alone) / statistics.median(own_alone)
    return {
        "ratio": middle,
        "ratio_q1": low,
        "ratio_q3": high,
        "alone_ratio": alone,
        "contaminated": is_contaminated(middle, alone),
    }


def is_contaminated(ratio: float, alone: float) -> bool:
    """Whether the ratio of neighbours and that of calls alone disagree, either way."""
    return max(ratio / alone, alone / ratio) > CONTAMINATED


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles and between them the median; all the same of a single value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


class _Partner:
    """Runs the baseline before the first round, after the second, and so on."""

    def __init__(self, baseline: Call):
        self.baseline = baseline
        self.seconds: list[float] = []
        self._is_first = True

    def before(self) -> None:
        if self._is_first:
            self.seconds.append(_seconds(self.baseline))

    def after(self) -> None:
        if not self._is_first:
            self.seconds.append(_seconds(self.baseline))
        self._is_first = not self._is_first


def _seconds(run: Call) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
