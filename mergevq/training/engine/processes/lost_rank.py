"""What a process says when another one of its run is gone: killed, out of memory, or unreachable.

Those that are left find out in one of two ways. A collective operation fails; or Lightning, where it started
the processes, finds one dead and kills all the others, this one too, so that none waits for ever.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mergevq.errors import MergeVQError

logger = logging.getLogger(__name__)

_OBSERVER = "lightning.fabric.strategies.launchers.subprocess_script"
_LIBRARIES = re.compile(r"gloo/|\bNCCL\b|\bHCCL\b")


@contextmanager
def lost_ranks_explained() -> Iterator[None]:
    """Within this context the loss of another process ends in one sentence.

    Raises:
        MergeVQError: a collective operation failed.
    """
    observer = logging.getLogger(_OBSERVER)
    observer.setLevel(logging.INFO)
    observer.addFilter(_retold)  # for good: the observer may kill this process while it is on its way out
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, MergeVQError) or not _is_collective(error):
            raise
        raise MergeVQError(_sentence(str(error))) from error


def _is_collective(error: RuntimeError) -> bool:
    known = torch.distributed.is_available() and isinstance(error, torch.distributed.DistError)
    return known or _LIBRARIES.search(str(error)) is not None


def _retold(record: logging.LogRecord) -> bool:
    """Says in our words what Lightning says before it kills."""
    process = re.search(r"PID (\d+) terminated with code (-?\d+)", record.getMessage())
    if process is None:
        return True
    logger.error("%s", _sentence(f"process {process[1]} ended with code {process[2]}"))
    return False


def _sentence(reason: str) -> str:
    """One sentence around the first one of a reason, without the place in C++ that stands before it."""
    first = re.sub(r"^\[[^\]]*\]\s*", "", reason.strip()).partition("\n")[0].partition(". ")[0]
    return (
        f"another process of the run is gone ({first or 'no reason'}), and with it the run; what it said is above, "
        "if it could say anything, and the same command goes on from the last checkpoint"
    )
