"""Counting broken pictures."""

from __future__ import annotations

import logging

import pytest

from mergevq.data.images.dataset import Failure
from mergevq.data.images.failures import FailureLog
from mergevq.errors import DataError


def _failures(*names: str) -> list[Failure]:
    return [Failure(name, "truncated") for name in names]


def test_each_file_is_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(limit=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            log.update(_failures("a.jpg", "b.jpg"))
    assert len(log) == 2 and len(caplog.records) == 2
    assert "a.jpg: truncated (1 of at most 2)" in caplog.text


def test_one_too_many() -> None:
    log = FailureLog(limit=2)
    log.update(_failures("a.jpg", "b.jpg"))
    with pytest.raises(DataError, match=r"3 pictures .*max_failures is 2: a\.jpg \(truncated\); b"):
        log.update(_failures("c.jpg"))


def test_zero_is_strict() -> None:
    log = FailureLog(limit=0)
    log.update([])
    with pytest.raises(DataError, match=r"a\.jpg"):
        log.update(_failures("a.jpg"))


def test_counting_goes_on_after_a_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(limit=1)
    log.update(_failures("a.jpg"))
    resumed = FailureLog(limit=1)
    resumed.load_state_dict(log.state_dict())
    caplog.clear()
    resumed.update(_failures("a.jpg"))
    assert not caplog.records
    with pytest.raises(DataError):
        resumed.update(_failures("b.jpg"))
    assert len(log) == 1
