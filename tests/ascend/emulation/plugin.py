"""A plug-in of pytest: an operator that the emulation does not know fails the test that called it.

Loaded by `run.py` with `-p emulation.plugin`, for tests in any folder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from emulation.build_stub import SHARED

MARK = "[emu]"
"""Begins the line that a refusal prints."""


@pytest.fixture(autouse=True)
def nothing_refused() -> Iterator[None]:
    """Fails where CANN was called for something that the emulation has not got."""
    library = ctypes.CDLL(SHARED)
    library.emu_latest_refusal.restype = ctypes.c_char_p
    before = library.emu_refusals()
    yield
    refused = library.emu_refusals() - before
    if refused:
        latest = library.emu_latest_refusal().decode()
        pytest.fail(
            f"{refused} calls of CANN were refused, the latest of {latest}: the emulation lacks an operator"
        )
