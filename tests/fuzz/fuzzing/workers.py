"""Reads the files of cases in a process of its own, which is forked from this one and again when it dies.

The process that forks has one thread and everything imported, so a new worker costs milliseconds. A worker may take
so much memory and time of the processor and no more, and whatever it does beside reading is recorded.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import logging
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_GRACE = 2.0
"""Seconds that a worker may sleep in one read before it counts as blocked."""
_HARD = 2
"""How many times its time a case may take before it is ended."""

_EVENTS = {
    "socket.connect": "network",
    "socket.getaddrinfo": "network",
    "socket.sendto": "network",
    "subprocess.Popen": "process",
    "os.system": "process",
    "os.exec": "process",
    "os.posix_spawn": "process",
    "os.fork": "process",
    "os.forkpty": "process",
    "pickle.find_class": "pickle",
}


class Worker:
    """A process that reads what it is told.

    Args:
        readers: by name; each takes a folder and returns what it made of it.
        checks: by the same names; what is wrong with what was returned.
    """

    def __init__(
        self, readers: dict[str, Callable[[Path], Any]], checks: dict[str, Callable[[Any], str | None] | None]
    ) -> None:
        self.readers = readers
        self.checks = checks
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._start()

    def read(self, name: str, folder: Path, seconds: float, megabytes: int) -> dict[str, Any]:
        """The outcome of reading a folder.

        Args:
            name: of the reader.
            folder: of the case.
            seconds: of the processor; it is ended after a few times as many.
            megabytes: that it may take beside what it holds.
        """
        self._log.seek(0)
        self._log.truncate()
        asked = {"name": name, "folder": str(folder), "seconds": seconds, "megabytes": megabytes}
        os.write(self._to, json.dumps(asked).encode() + b"\n")
        ended = self._await(seconds * _HARD)
        if ended == "returned":
            line = self._line()
            if line:
                return {**json.loads(line), "ended": ended}
            ended = self._how_it_died()
        self.close()
        self._log.seek(0)
        said = self._log.read()[-2000:].decode(errors="replace")
        self._start()
        return {"ended": ended, "message": said, "events": [], "seconds": 0.0}

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._to)
        self._from.close()

    def _start(self) -> None:
        to_read, self._to = os.pipe()
        from_read, from_write = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._to)
            os.close(from_read)
            with contextlib.suppress(BaseException):
                _serve(self, to_read, from_write)
            os._exit(0)
        os.close(to_read)
        os.close(from_write)
        self._from = os.fdopen(from_read, "rb", buffering=0)

    def _line(self) -> bytes:
        """A whole answer: pipes hold 64 KiB, and answers are shorter or come in parts."""
        parts = [self._from.read(1 << 20)]
        while parts[-1] and not parts[-1].endswith(b"\n"):
            parts.append(self._from.read(1 << 20))
        return b"".join(parts)

    def _await(self, seconds: float) -> str:
        """How the reading ended: returned, died, or was given up."""
        before, since = self._processor_time(), time.monotonic()
        first = before
        while True:
            ready, _, _ = select.select([self._from], [], [], 0.5)
            if ready:
                return "returned"
            now = self._processor_time()
            if now is None:
                return self._how_it_died()
            if now != before:
                before, since = now, time.monotonic()
            if (now or 0) - (first or 0) > seconds:
                return "endless"
            if time.monotonic() - since > _GRACE and self._state() == "S":
                return "blocked"

    def _how_it_died(self) -> str:
        found = os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOWAIT)
        if found is not None and found.si_code != os.CLD_EXITED:
            name = signal.Signals(found.si_status).name
            return {"SIGXCPU": "endless", "SIGKILL": "memory"}.get(name, f"died of {name}")
        return "left the process"

    def _stat(self) -> list[str]:
        try:
            text = Path(f"/proc/{self._process}/stat").read_text()
        except OSError:
            return []
        return text.rpartition(")")[2].split()

    def _state(self) -> str:
        return (self._stat() or [""])[0]

    def _processor_time(self) -> float | None:
        fields = self._stat()
        if not fields or fields[0] in "ZX":
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(worker: Worker, asked: int, answers: int) -> None:
    """In the worker: reads until the pipe is closed."""
    os.dup2(worker._log.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with the process that forked it
    record: list[str] = []
    sys.addaudithook(_recorder(record))
    for line in os.fdopen(asked, "rb"):
        request = json.loads(line)
        record.clear()
        outcome = _outcome(worker, request, record)
        text = json.dumps(outcome).encode() + b"\n"
        while text:
            text = text[os.write(answers, text) :]


def _recorder(record: list[str]) -> Callable[[str, Any], None]:
    """A hook that records what a reader must not do, and stops it."""

    def hook(event: str, arguments: Any) -> None:
        what = _EVENTS.get(event)
        if what is None or not _Limits.armed:
            return
        record.append(f"{what} {event} {_short(arguments)}")
        raise PermissionError(f"the fuzzer does not let readers do {event}")

    return hook


def _short(arguments: Any) -> str:
    try:
        return repr(arguments)[:200]
    except Exception:
        return "?"


class _Limits:
    """Of memory and of the processor, for as long as something is read."""

    armed = False

    def __init__(self, seconds: float, megabytes: int) -> None:
        self.seconds = seconds
        self.megabytes = megabytes

    def __enter__(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        self._set(resource.RLIMIT_AS, pages * resource.getpagesize() + (self.megabytes << 20))
        self._set(resource.RLIMIT_CPU, int(time.process_time() + self.seconds * _HARD) + 2)
        _Limits.armed = True

    def __exit__(self, *_: object) -> None:
        _Limits.armed = False
        for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
            self._set(what, resource.RLIM_INFINITY)

    @staticmethod
    def _set(what: int, soft: int) -> None:
        resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))


def _outcome(worker: Worker, request: dict[str, Any], record: list[str]) -> dict[str, Any]:
    """What a reader did, as plain values."""
    reader, check = worker.readers[request["name"]], worker.checks[request["name"]]
    error: BaseException | None = None
    result, wrong = None, None
    started = time.process_time()
    logged = _Warnings()
    try:
        with (
            logged,
            _Limits(request["seconds"], request["megabytes"]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            result = reader(Path(request["folder"]))
    except BaseException as raised:
        error = raised
    seconds = time.process_time() - started
    if error is None and check is not None:
        wrong = check(result)
    return {
        "error": None if error is None else type(error).__name__,
        "ours": _is_ours(error),
        "message": "" if error is None else _text(error),
        "printed": "" if error is None else _printed(error),
        "place": _place(error),
        "chain": _chain(error),
        "wrong": wrong,
        "logged": logged.texts,
        "events": list(record),
        "seconds": seconds,
    }


class _Warnings(logging.Handler):
    """What the package warns of meanwhile, as its commands print it: users read that too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        from mergevq.cli.shared import logs

        self.setFormatter(logs._Formatter())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts += [self.format(record)] if len(self.texts) < 20 else []

    def __enter__(self) -> None:
        logging.getLogger("mergevq").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mergevq").removeHandler(self)


def _is_ours(error: BaseException | None) -> bool:
    return any(kind.__name__ == "MergeVQError" for kind in type(error).__mro__)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:
        return f"(its message cannot be had: {other!r})"


def _printed(error: BaseException) -> str:
    """What a command prints of an error."""
    from mergevq import cli

    return _text(error) if not _is_ours(error) else str(cli.sentence(error))


def _chain(error: BaseException | None) -> list[str]:
    """The error and what it came of, one after another."""
    found: list[str] = []
    while error is not None and len(found) < 10:
        found.append(f"{type(error).__name__}: {_text(error)[:300]}")
        error = error.__cause__ or error.__context__
    return found


def _place(error: BaseException | None) -> str:
    """Where in the package an error was raised: a file and a function, which stay the same when lines move."""
    if error is None:
        return ""
    cause: BaseException | None = error
    frames = traceback.extract_tb(cause.__traceback__)[-60:]
    names = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames if "mergevq" in frame.filename]
    return names[-1] if names else "elsewhere"
