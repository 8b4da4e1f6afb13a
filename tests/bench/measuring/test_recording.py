from __future__ import annotations

import json

import numpy as np
import pytest

from mergevq.backends import select
from mergevq.bench.measuring.recording import environment, percentiles


@pytest.mark.parametrize(
    ("rounds", "names"),
    [
        (1, ["p50"]),
        (49, ["p50"]),
        (50, ["p50", "p90"]),
        (100, ["p50", "p90", "p95"]),
        (500, ["p50", "p90", "p95", "p99"]),
    ],
)
def test_a_percentile_needs_five_rounds_beyond_it(rounds, names):
    assert list(percentiles(np.linspace(1, 2, rounds).tolist())) == names


def test_percentiles_are_numpys():
    seconds = np.random.default_rng(0).lognormal(size=737)
    for name, value in percentiles(seconds.tolist()).items():
        assert value == pytest.approx(np.percentile(seconds, int(name[1:])))


def test_the_environment_is_json():
    found = environment(select("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == "cpu" and found["torch"]
