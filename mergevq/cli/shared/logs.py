"""What a command says while it works: log lines on stderr, without the chatter of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mergevq.errors import printable

_CHATTY = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
"""Loggers that tell of accelerators that were not asked for."""

_MISLEADING = (
    r".*does not have many workers.*",
    r".*`srun` command is available.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*The number of training batches.*",
    r".*Trying to infer the `batch_size`.*",
    r".*persistent_workers.*",
)
"""Warnings that suggest what does not apply here, such as more workers than there are cores."""


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Within this context the package's log goes to stderr; afterwards everything is as before."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter())
    handler.addFilter(_Once())
    package = logging.getLogger("mergevq")
    before = [(logger, logger.level) for logger in (package, *map(logging.getLogger, _CHATTY))]
    package.setLevel(logging.INFO if _first_process() else logging.WARNING)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    package.addHandler(handler)
    try:
        with warnings.catch_warnings():
            for pattern in _MISLEADING:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        package.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)


class _Handler(logging.StreamHandler):
    """Writes above a progress bar, where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class _Once(logging.Filter):
    """Lets a message that asks for it (`extra={"once": True}`) through only the first time."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "once", False):
            return True
        new = record.getMessage() not in self._seen
        self._seen.add(record.getMessage())
        return new


class _Formatter(logging.Formatter):
    """The message alone; warnings say that they are ones."""

    def format(self, record: logging.LogRecord) -> str:
        text = printable(super().format(record))
        if record.levelno < logging.WARNING:
            return text
        return f"mergevq: {record.levelname.lower()}: {text}"


def _first_process() -> bool:
    """Whether this is the process of a distributed run that does the talking."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))
