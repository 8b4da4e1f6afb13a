from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from mergevq.bench import compare, report
from mergevq.errors import UsageError

WRITTEN = Path(__file__).parents[2] / "docs" / "results" / "bench-decode.json"
HUGE = 10**400


@pytest.fixture(scope="module")
def sound():
    values = report.read(WRITTEN)
    return {**values, "benchmarks": values["benchmarks"][:2]}


def test_what_was_written_is_read(sound, tmp_path):
    path = tmp_path / "timings.json"
    path.write_text(json.dumps(sound))
    found = report.read(path)
    assert report.markdown(found)
    assert compare.as_table(found, found)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *((("benchmarks", 0, "stats", name), value) for name in ("q1", "q3") for value in (None, [], "x", HUGE)),
        (("benchmarks", 0, "stats", "median"), 0),
        (("benchmarks", 0, "stats", "median"), float("nan")),
        (("benchmarks", 0, "stats", "percentiles"), {"p50": "x"}),
        (("benchmarks", 0, "stats"), None),
        (("benchmarks", 0, "extra_info"), {"row": ["x"], "column": "y"}),
        (("benchmarks", 0, "extra_info"), {"images": [1]}),
        (("benchmarks", 0, "extra_info"), {"contaminated": True}),
        (("benchmarks", 0, "fullname"), 1),
        (("benchmarks", 0), None),
        (("benchmarks",), {}),
        (("machine_info",), []),
        (("machine_info", "cpu"), {"brand_raw": 0.5}),
        (("machine_info", "mergevq"), 1),
        (("machine_info", "mergevq", "cores"), [1] * 500),
        (("machine_info", "mergevq", "load_average"), [HUGE]),
        (("machine_info", "mergevq", "versions"), 1),
        (("datetime",), 1),
    ],
)  # fmt: skip
def test_values_that_no_timing_has_are_one_sentence(sound, where, value, tmp_path):
    values = copy.deepcopy(sound)
    place = values
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    path = tmp_path / "timings.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="give what --benchmark-json wrote"):
        report.read(path)
