from __future__ import annotations

import pytest

from mergevq.bench.compare import as_table, changes
from mergevq.errors import UsageError


def scale(results, number, factor):
    stats = results["benchmarks"][number]["stats"]
    for name in ("q1", "median", "q3"):
        stats[name] *= factor


def test_the_same_timings_are_within_noise(timings):
    found = changes(timings, timings)
    assert len(found) == len(timings["benchmarks"])
    assert {change.verdict.partition(" (")[0] for change in found} == {"within noise"}


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.5, "slower"), (0.7, "faster"), (1.1, "within noise"), (0.95, "within noise")]
)
def test_quartiles_that_do_not_overlap_are_a_change(timings, altered, factor, verdict):
    after = altered(lambda results: scale(results, 0, factor))
    change = changes(timings, after)[0]
    assert change.verdict == verdict
    assert change.after / change.before == pytest.approx(factor)
    assert f"| {factor:.2f} | {verdict} |" in as_table(timings, after)


def test_the_folder_of_the_files_does_not_matter(timings, altered):
    def move(results):
        for case in results["benchmarks"]:
            case["fullname"] = case["fullname"].replace("somewhere/", "/site-packages/mergevq/bench/")

    assert len(changes(timings, altered(move))) == len(timings["benchmarks"])


def test_new_and_gone_cases_are_listed(timings, altered):
    fewer = altered(lambda results: results["benchmarks"].pop())
    name = timings["benchmarks"][-1]["fullname"].rpartition("/")[2]
    assert f"| {name} |" in as_table(timings, fewer) and as_table(timings, fewer).count("| gone |") == 1
    assert as_table(fewer, timings).count("| new |") == 1


def test_a_contaminated_row_says_so(timings):
    marked = sum(case["extra_info"].get("contaminated", False) for case in timings["benchmarks"])
    assert as_table(timings, timings).count("within noise (contaminated) |") == marked == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda info: info["cpu"].update(brand_raw="Another"), "processor A Processor and Another"),
        (lambda info: info["mergevq"].update(cores=64), "cores 2 and 64"),
        (lambda info: info["mergevq"].update(device="cuda"), "device cpu and cuda"),
    ],
)
def test_machines_are_not_mixed(timings, altered, change, said):
    with pytest.raises(UsageError, match=said):
        as_table(timings, altered(lambda results: change(results["machine_info"])))


def test_other_versions_are_named(timings, altered):
    after = altered(lambda results: results["machine_info"]["mergevq"]["versions"].update(onnxruntime="1.40"))
    assert as_table(timings, after).startswith("Versions differ: onnxruntime 1.31.1 → 1.40.\n")
    assert "Versions differ" not in as_table(timings, timings)
