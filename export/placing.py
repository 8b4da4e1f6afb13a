"""A folder that takes the place of another, whole: one process at a time, and what a kill interrupts is mended.

Needs neither PyTorch nor onnx: whoever reads a folder mends it too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mergevq.errors import OutputError
from mergevq.storage.leftovers import abandoned, hidden, remove
from mergevq.storage.locks import only_writer

EARLIER = ".earlier"
"""Ends the name of a folder that stands aside while another takes its place."""


@contextlib.contextmanager
def only_exporter(out: Path) -> Iterator[None]:
    """Within this context no other process writes this folder; what killed ones left of it is mended and cleared.

    Raises:
        UsageError: another process exports to it; it is named.
        OutputError: the folder around it cannot be written to.
    """
    with only_writer(out.parent, f".{out.name}.lock", doing=f"exports {out.name} there"):
        put_back(out)
        for path in abandoned(out.parent, name=out.name):
            remove(path)
        yield


def put_back(out: Path) -> None:
    """Gives an earlier folder its name back where a process was killed before the new one had it."""
    out = Path(os.path.realpath(out))
    with contextlib.suppress(OSError):  # a reader may not be allowed to, and then finds nothing
        for earlier in sorted(abandoned(out.parent, EARLIER, out.name), key=_age):
            if out.exists():
                remove(earlier)
            else:
                earlier.rename(out)


@contextlib.contextmanager
def folder_to_be(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends without an error, and else disappears."""
    folder = hidden(out)
    try:
        folder.mkdir(parents=True)
        yield folder
        _take_place(folder, out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        remove(folder)


def _take_place(folder: Path, out: Path) -> None:
    """Renames; an earlier folder goes only once the new one stands in its place."""
    if not out.exists():
        folder.rename(out)
        return
    earlier = hidden(out, EARLIER)
    try:
        out.rename(earlier)
        folder.rename(out)
    finally:
        if out.exists():
            remove(earlier)
        else:
            earlier.rename(out)


def _age(path: Path) -> float:
    return -path.stat().st_mtime
