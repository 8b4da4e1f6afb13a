"""Makes cases, has them read, and gathers what is found."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fuzzing.case import Case, Kind, build
from fuzzing.verdicts import judge
from fuzzing.workers import Worker

_SHOWN = 600
"""Bytes of a damaged file up to which it is shown."""


class Report(NamedTuple):
    """A finding, and how to see it again."""

    kind: str
    number: int
    cause: str
    detail: str
    done: str
    command: str
    files: dict[str, str]
    """The small files of the case that are not the valid ones, in base 64."""


class Examiner:
    """Examines cases of some kinds.

    Args:
        kinds: by name.
        home: an empty folder.
    """

    def __init__(self, kinds: Mapping[str, Kind], home: Path) -> None:
        self.kinds = {
            name: kind for name, kind in kinds.items() if all(map(importlib.util.find_spec, kind.depends))
        }
        self.home = home
        for name, kind in self.kinds.items():
            folder = home / "valid" / name
            folder.mkdir(parents=True)
            kind.make(folder)
            for module in kind.imports:
                importlib.import_module(module)
        readers = {name: kind.read for name, kind in self.kinds.items()}
        self._worker = Worker(readers, {name: kind.check for name, kind in self.kinds.items()})

    def examine(self, name: str, seed: int, numbers: range) -> Iterator[Report | None]:
        """What is wrong with each of some cases; None is nothing."""
        for number in numbers:
            yield self._examine(Case(name, seed, number))

    def close(self) -> None:
        """Ends the process that reads."""
        self._worker.close()

    def _examine(self, case: Case) -> Report | None:
        kind, valid = self.kinds[case.kind], self.home / "valid" / case.kind
        folder = self.home / "case" / str(case.number)
        done = build(case, kind, valid, folder)
        outcome = self._worker.read(case.kind, folder, kind.seconds, kind.megabytes)
        for path in (folder / "executed", Path("executed")):
            if path.exists():
                outcome["events"].append("pickle code was run")
                path.rmdir()
        found = judge(outcome, str(folder), kind.seconds)
        if found is None and case.number == 0 and outcome["error"] is not None:
            found = judge({**outcome, "ours": False}, str(folder), kind.seconds)  # the valid file is refused
        report = None
        if found is not None:
            report = Report(case.kind, case.number, *found, done, case.command, _changed(folder, valid))
        shutil.rmtree(folder, ignore_errors=True)
        return report


def _changed(folder: Path, valid: Path) -> dict[str, str]:
    """The small files that were damaged."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info, before = path.lstat(), valid / path.relative_to(folder)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _SHOWN:
            continue
        content = path.read_bytes()
        if not before.is_file() or before.read_bytes() != content:
            found[str(path.relative_to(folder))] = base64.b64encode(content).decode()
    return found
