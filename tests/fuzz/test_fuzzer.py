"""The fuzzer finds what a reader must not do, each in a reader that does it, and nothing in readers that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

CAUSES = {
    "raw": "raw KeyError at elsewhere",
    "bomb": "memory",
    "hidden-bomb": "memory",
    "endless": "endless",
    "blocked": "blocked",
    "pickle": "pickle",
    "network": "network",
    "process": "process",
    "dies": "died of SIGSEGV",
    "leaves": "left the process",
    "slow": "slow",
    "accepts": "accepted",
    "lines": "a message of several lines",
    "long": "a message of more than 400 characters",
    "silent": "a message without words",
    "advises": "a message with advice to execute the file",
    "names-a-class": "a message with a name of a Python class",
    "names-a-key": "a message with a reason that is only a name",
    "python-words": "a message with Python's own words",
    "warns": "a warning with a name of a Python class",
}


@pytest.fixture(scope="module")
def found(fuzz):
    return fuzz("--readers", Path(__file__).with_name("broken_readers.py"), "--first", 1, "--count", 1)


@pytest.mark.parametrize("kind", CAUSES)
def test_a_reader_that_fails_is_found(kind, found):
    reports = [report for report in found["reports"] if report["kind"] == kind]
    assert len(reports) == 1
    assert reports[0]["cause"].startswith(CAUSES[kind])
    assert reports[0]["command"] == f"python tests/fuzz/run.py {kind} --seed 0 --first 1 --count 1"


@pytest.mark.parametrize("kind", ["sound", "returns"])
def test_a_sound_reader_is_not(kind, found):
    assert kind in found["cases"]
    assert not [report for report in found["reports"] if report["kind"] == kind]


def test_a_case_is_a_function_of_seed_kind_and_number(fuzz):
    calls = [
        fuzz("--readers", Path(__file__).with_name("broken_readers.py"), "raw", "--seed", s)
        for s in (3, 3, 4)
    ]
    files = [[report["files"] for report in call["reports"]] for call in calls]
    assert files[0] == files[1] != files[2]
