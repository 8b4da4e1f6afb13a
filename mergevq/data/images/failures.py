"""Pictures that could not be read: each is named once, and too many stop the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mergevq.data.images.dataset import Failure
from mergevq.errors import DataError

logger = logging.getLogger(__name__)


class FailureLog:
    """Counts the files that could not be read, each file once however often it is drawn.

    Args:
        limit: how many files may fail; 0 makes the first failure fatal.
        setting: what the user calls the limit, for the message.
    """

    def __init__(self, limit: int, setting: str = "data.max_failures") -> None:
        self.limit = limit
        self.setting = setting
        self._reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def update(self, failures: Iterable[Failure]) -> None:
        """Takes the failures of a batch; new ones are logged with the reason.

        Raises:
            DataError: more files than the limit have failed; the first ones are named.
        """
        for name, reason in failures:
            if name not in self._reasons:
                self._reasons[name] = reason
                logger.warning("skipping %s: %s (%d of at most %d)", name, reason, len(self), self.limit)
        if len(self) > self.limit:
            shown = "; ".join(f"{name} ({reason})" for name, reason in list(self._reasons.items())[:3])
            raise DataError(
                f"{len(self)} pictures could not be read and {self.setting} is {self.limit}: {shown}"
                f"{'; ...' if len(self) > 3 else ''}"
            )

    def state_dict(self) -> dict[str, Any]:
        """The files that failed so far, for a checkpoint."""
        return {"reasons": dict(self._reasons)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting where `state_dict` was taken."""
        self._reasons = dict(state["reasons"])
