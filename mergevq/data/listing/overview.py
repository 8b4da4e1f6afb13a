"""The line with which every command that reads data begins: how many pictures, which classes, what is passed over."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mergevq.data.listing.layout import FLAT
from mergevq.data.listing.passed_over import PassedOver
from mergevq.data.listing.splits import Census, few

logger = logging.getLogger(__name__)


def say_overview(path: str, census: Census, classes: Sequence[str], passed: PassedOver | None = None) -> None:
    """Logs the line; a command shows it once, however often it opens the data (see `cli.shared.logs`)."""
    logger.info("%s", overview(path, census, classes, passed), extra={"once": True})


def overview(path: str, census: Census, classes: Sequence[str], passed: PassedOver | None = None) -> str:
    """What there is at a path, in one line.

    Args:
        path: as the user gave it.
        census: the pictures of training and validation.
        classes: of both.
        passed: what is there and not read.
    """
    named = [name for name in classes if name != FLAT]
    kinds = f"{len(named)} class{'' if len(named) == 1 else 'es'} ({few(named)})" if named else "no classes"
    parts = [f"data {path}: {_pictures(census)}, {kinds}", *census.remarks]
    line = "; ".join([*parts, f"passed over: {passed}"] if passed else parts)
    return "".join(letter if letter.isprintable() else "?" for letter in line)  # names may hold anything


def _pictures(census: Census) -> str:
    if census.validation is None:
        return f"{census.training} picture{'' if census.training == 1 else 's'}"
    return f"{census.training} training and {census.validation} validation pictures ({census.how})"
