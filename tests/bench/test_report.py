from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.bench.report import main, markdown, read, significant
from mergevq.errors import UsageError


def timing(group, row, column, median=0.008, **extra):
    """One entry as pytest-benchmark writes it, as far as the report looks."""
    return {
        "group": group,
        "stats": {"q1": 0.75 * median, "median": median, "q3": 1.25 * median},
        "extra_info": {"row": row, "column": column, **extra},
    }


@pytest.fixture
def results():
    """Two groups, of which the first has a hole."""
    return {
        "datetime": "2026-02-03T04:05:06+00:00",
        "machine_info": {
            "python_version": "3.11.7",
            "cpu": {"brand_raw": "A Processor"},
            "mergevq": {
                "torch": "2.14.1",
                "device": "cpu",
                "cores": 2,
                "capabilities": {"instructions": "AVX512"},
                "load_average": [0.25, 1.0, 2.0],
            },
        },
        "benchmarks": [
            timing("encode", "G, 1 image", "float32", 0.8, images=1),
            timing("encode", "R, 8 images", "float32", 0.4, images=8),
            timing("encode", "R, 8 images", "bf16", 0.2, images=8),
            timing("merging", "G", "matching", share=0.0213),
            timing("merging", "G", "loss", peak_bytes=3 * 2**20),
        ],
    }


@pytest.fixture
def written(results, tmp_path):
    path = tmp_path / "timings.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    return path


def tables(text):
    """The cells of each table by its heading."""
    found = {}
    for part in text.split("### ")[1:]:
        heading, *lines = part.strip().splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
        found[heading] = [cells[0], *cells[2:]]
    return found


def test_a_group_becomes_a_table_with_its_rows_and_columns_in_order(results):
    encode = tables(markdown(results))["Encode"]
    assert encode[0] == ["", "float32", "bf16"]
    assert [row[0] for row in encode[1:]] == ["G, 1 image", "R, 8 images"]


def test_a_cell_holds_median_quartiles_and_images_a_second(results):
    encode = tables(markdown(results))["Encode"]
    assert encode[1][1] == "**800** (600–1000); 1.25 img/s"
    assert encode[2][1:] == ["**400** (300–500); 20.0 img/s", "**200** (150–250); 40.0 img/s"]


def test_what_was_not_run_is_a_dash(results):
    assert tables(markdown(results))["Encode"][1][2] == "–"


def test_shares_and_memory_are_shown(results):
    merging = tables(markdown(results))["Merging"]
    assert merging[1] == [
        "G",
        "**8.00** (6.00–10.0); 2.1% of the encoder",
        "**8.00** (6.00–10.0); 3.00 MiB",
    ]


def test_every_line_of_a_table_has_as_many_cells(results):
    for line in markdown(results).splitlines():
        if line.startswith("|"):
            assert line.count("|") == 4, line
            assert line.endswith("|")


def test_the_machine_stands_above_the_tables(results):
    first = markdown(results).splitlines()[0]
    assert first == (
        "Measured on: A Processor, 2 cores, device cpu, instructions AVX512, PyTorch 2.14.1, Python 3.11.7, "
        "load 0.2 at the end, 2026-02-03."
    )


def test_a_bare_machine_and_foreign_timings_do_no_harm(results):
    results["machine_info"] = {}
    results["benchmarks"].append({"group": "other", "stats": {}, "extra_info": {}})
    text = markdown(results)
    assert list(tables(text)) == ["Encode", "Merging"]
    assert text.startswith("Measured on: Python unknown, 2026-02-03.")


def test_the_command_writes_the_file_and_nothing_else(written, results, tmp_path, capsys):
    out = tmp_path / "new" / "timings.md"
    assert main([str(written), "--markdown", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == markdown(results)
    assert capsys.readouterr() == ("", "")


def test_without_a_file_it_writes_to_standard_output(written, results, capsys):
    assert main([str(written)]) == 0
    assert capsys.readouterr().out == markdown(results)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot read"), ("not json", "is no JSON"), ("[]", "no timings"), ('{"a": 1}', "no timings")],
)
def test_a_file_that_is_no_benchmark_is_one_sentence(tmp_path, capsys, content, complaint):
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read(path)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and str(path) in error and error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_sentence(written, tmp_path, capsys):
    assert main([str(written), "--markdown", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1617.4, "1617"),
        (815, "815"),
        (81.5, "81.5"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (0.09996, "0.100"),
        (0, "0"),
    ],
)
def test_significant_digits(value, shown):
    assert significant(value) == shown


@given(st.floats(1e-6, 1e6))
def test_significant_digits_are_close_and_enough(value):
    shown = significant(value)
    assert float(shown) == pytest.approx(value, rel=5.1e-3)
    assert len(re.sub(r"^0\.0*|\.", "", shown)) >= 3
