from __future__ import annotations

import pytest

from mergevq.backends import select
from mergevq.bench.subjects import runtimes
from mergevq.bench.subjects.models import NARROW
from mergevq.errors import DeviceUnavailableError


def test_without_a_card_nothing_is_exported_for_engines(monkeypatch, tmp_path):
    def no_card():
        raise DeviceUnavailableError("there is no card")

    monkeypatch.setattr(runtimes, "Cuda", no_card)
    monkeypatch.setattr(runtimes, "export_of", lambda *_, **__: pytest.fail("exported all the same"))
    where = runtimes.Where(select("cpu"), 1, tmp_path)
    with pytest.raises(runtimes.Unavailable, match="there is no card"):
        runtimes.open_tokenizer(NARROW, "tensorrt", "float32", where)
