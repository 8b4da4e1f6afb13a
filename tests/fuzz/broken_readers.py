"""Readers that do each what a reader must not do, for the tests of the fuzzer itself."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from fuzzing.case import Kind, Target
from fuzzing.mutators.places import pickled
from fuzzing.mutators.raw import BYTES

from mergevq.errors import DataError


def _key_error(folder: Path) -> object:
    return {}["depth"]


def _bomb(folder: Path) -> object:
    return bytes(1 << 33)


def _hidden_bomb(folder: Path) -> object:
    try:
        return bytes(1 << 33)
    except MemoryError as error:
        raise DataError("the file cannot be read") from error


def _endless(folder: Path) -> object:
    while True:
        pass


def _blocked(folder: Path) -> object:
    os.mkfifo(folder / "pipe")
    return (folder / "pipe").read_bytes()


def _pickle(folder: Path) -> object:
    return pickle.loads(pickled())


def _network(folder: Path) -> object:
    try:
        return socket.create_connection(("127.0.0.1", 9), timeout=1)
    except OSError as error:
        raise DataError("there is no such file") from error


def _process(folder: Path) -> object:
    return subprocess.run(["true"])


def _dies(folder: Path) -> object:
    os.kill(os.getpid(), signal.SIGSEGV)
    return None


def _leaves(folder: Path) -> object:
    os._exit(0)


def _slow(folder: Path) -> object:
    started = time.process_time()
    while time.process_time() - started < 0.25:
        pass
    return None


def _says(text: str) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        raise DataError(text.replace("FOLDER", str(folder)))

    return read


def _warns(folder: Path) -> object:
    import logging

    logging.getLogger("mergevq.data").warning("skipping a.png: KeyError 'mode'")
    return None


def _kind(read: Callable[[Path], object], check: Callable[[object], str | None] | None = None) -> Kind:
    return Kind(
        make=lambda folder: (folder / "file").write_bytes(b"sound"),
        targets=(Target("file", BYTES),),
        read=read,
        check=check,
        seconds=0.2,
        imports=(),
        default=2,
    )


KINDS = {
    "sound": _kind(_says("FOLDER/file cannot be read: it is no token file; make it again")),
    "returns": _kind(lambda folder: 1, lambda found: None),
    "raw": _kind(_key_error),
    "bomb": _kind(_bomb),
    "hidden-bomb": _kind(_hidden_bomb),
    "endless": _kind(_endless),
    "blocked": _kind(_blocked),
    "pickle": _kind(_pickle),
    "network": _kind(_network),
    "process": _kind(_process),
    "dies": _kind(_dies),
    "leaves": _kind(_leaves),
    "slow": _kind(_slow),
    "accepts": _kind(lambda folder: float("nan"), lambda found: "a rate of NaN"),
    "lines": _kind(_says("cannot read:\nline 2\n  ^")),
    "long": _kind(_says("x" * 500)),
    "silent": _kind(_says("")),
    "advises": _kind(_says("set weights_only=False to read it")),
    "names-a-class": _kind(_says("cannot be read: KeyError 'depth'")),
    "names-a-key": _kind(_says("the file cannot be understood: 'depth'; export again")),
    "python-words": _kind(_says("cannot be used: 'int' object is not iterable")),
    "warns": _kind(_warns),
}
