"""A file's place taken by something else: another file, a folder, a link, a device, a pipe."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>404</body></html>\n"


class _Payload:
    """What makes a folder beside the files when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("executed",)


def pickled() -> bytes:
    """A pickle that makes a folder when it is read."""
    return pickle.dumps({"state_dict": {}, "model": _Payload()}, protocol=2)


def _zip_of(names: dict[str, bytes]) -> bytes:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in names.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


_CONTENTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a pointer of git-lfs": lambda: POINTER,
    "a web page": lambda: PAGE,
    "a pickle that runs code": pickled,
    "a zip with such a pickle": lambda: _zip_of({"archive/data.pkl": pickled(), "archive/version": b"3\n"}),
    "an empty zip": lambda: _zip_of({}),
    "a zip of other files": lambda: _zip_of({"a.txt": b"x", "b.npy": b"y"}),
    "zeros": lambda: bytes(100_000),
    "text": lambda: b"not what it should be\n",
    "text in UTF-16": lambda: "{}".encode("utf-16"),
    "an array": lambda: (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".ljust(117)
        + b"\n"
        + bytes(8)
    ),
    "safetensors without tensors": lambda: (2).to_bytes(8, "little") + b"{}",
    "gzip": lambda: b"\x1f\x8b\x08\x00" + bytes(20),
}


def other_content(draw: random.Random, path: Path) -> str:
    """Another kind of file under this name."""
    name, make = draw.choice(list(_CONTENTS.items()))
    content = make()
    _clear(path)
    path.write_bytes(content)
    return f"replaced by {name}"


def missing(draw: random.Random, path: Path) -> str:
    """Nothing under this name."""
    _clear(path)
    return "taken away"


def folder(draw: random.Random, path: Path) -> str:
    """A folder under this name."""
    _clear(path)
    path.mkdir()
    return "replaced by a folder"


def link(draw: random.Random, path: Path) -> str:
    """A link to itself, to nothing, to a device that never ends, to what cannot be read."""
    to = draw.choice((path.name, "nowhere", "/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem", "."))
    _clear(path)
    path.symlink_to(to)
    return f"replaced by a link to {to}"


def pipe(draw: random.Random, path: Path) -> str:
    """A pipe that nobody writes to."""
    _clear(path)
    os.mkfifo(path)
    return "replaced by a pipe"


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


PLACES = (other_content, other_content, missing, folder, link, pipe)
"""All of them."""
NAMED = (other_content, other_content, folder, link)
"""For files that may be a pipe, as that of `<(command)` is, and are waited for then."""
