"""Damaged files of every kind end in one clear sentence: a few in the default tests, thousands on request.

    MERGEVQ_FUZZ=300 pytest -m fuzz tests/fuzz             so many of each kind; MERGEVQ_FUZZ_SEED for others

A failure names the command that repeats it.
"""

from __future__ import annotations

import os

import pytest

CASES = os.environ.get("MERGEVQ_FUZZ", "")
SEED = os.environ.get("MERGEVQ_FUZZ_SEED", "0")


def described(found):
    """The findings, one of each cause."""
    causes = {(report["kind"], report["cause"]): report for report in found["reports"]}
    return "".join(
        f"\n{kind}: {cause}\n    {report['done'][:200]}\n    {report['detail'][:300]}\n    {report['command']}"
        for (kind, cause), report in causes.items()
    )


def test_a_few_damaged_files_of_each_kind(fuzz):
    found = fuzz()
    assert not found["reports"], described(found)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.skipif(not CASES.isdecimal(), reason="MERGEVQ_FUZZ is no number of cases of each kind")
def test_many_damaged_files_of_each_kind(fuzz):
    found = fuzz("--count", CASES, "--seed", SEED)
    assert not found["reports"], described(found)
