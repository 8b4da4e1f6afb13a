"""What a process that reads data does with signals that are meant for the run, and with what it cannot hand over.

A service manager sends SIGTERM to all processes of a group at once, and SLURM any signal to all of a job. A reader
that died of it would end the run in the middle of a step, before it has written its checkpoint.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from multiprocessing.queues import Queue


def begin(worker: int) -> None:
    """For `DataLoader`: what a reader does first.

    Args:
        worker: its number.
    """
    Queue._on_queue_feeder_error = staticmethod(end_without_batch)  # type: ignore[attr-defined]  # a hook to override
    outlive_signals(worker)


def end_without_batch(error: BaseException, batch: object) -> None:
    """Ends this process where a batch cannot be handed over; otherwise it would be waited for, for ever.

    The exit code is the number of the system's error, which `lost_readers` puts into words, or 1.
    """
    number = re.search(r"\((\d+)\)\s*$", str(error))  # PyTorch's errors end like this
    code = (error.errno or 1) if isinstance(error, OSError) else int(number[1]) if number else 1
    if code == 1 and sys.stderr is not None:
        sys.stderr.write(f"mergevq: a process that reads data cannot hand over a batch: {error}\n")
        sys.stderr.flush()
    os._exit(code)


def outlive_signals(worker: int) -> None:
    """For `DataLoader`: a reader ends when the process that it reads for says so, and for no other SIGTERM.

    Args:
        worker: its number.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS and Windows do not say who sent a signal
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, name=f"reader-{worker}", daemon=True).start()


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
